"""Begin a run when another system calls the webhook's address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import msgspec

from nodes.contract import NodeType, RunContext, port, setting
from nodes.hooks import Answer, Authentication, Hook, wrong_with_secret
from nodes.mistakes import Keys, Mistakes

_KEYS = {
    "methods": "method",
    "username": "username",
    "allowed_ips": "allowed_ips",
    "path": "path",
    "header": "header",
}
WELL_KNOWN = "wht_secrettoken123"
"""The token that an editor writes into every new webhook: no secret, so it lets nobody in."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: Annotated[
        str,
        setting(
            "webhook_id", template=False, description="What the address ends with; left empty, one is made."
        ),
    ] = ""
    method: Annotated[
        str | tuple[str, ...],
        setting(
            "http_method",
            "methods",
            template=False,
            description="GET, HEAD, POST, PUT, PATCH or DELETE, or several of them.",
        ),
    ] = "POST"
    authentication: Annotated[
        Literal[
            "",
            "none",
            "bearer",
            "basic",
            "header",
            "hmac",
            "standard",
            "github",
            "stripe",
            "slack",
            "basic_auth",
            "header_auth",
        ],
        setting(
            "authentication_type",
            template=False,
            description="How callers prove who they are: a token, a password, or a signature of the body as "
            "Standard Webhooks, GitHub, Stripe, Slack or the settings of 'hmac' say.",
        ),
    ] = ""
    authentication_required: Annotated[
        bool,
        setting(template=False, description="Of older drawings: the same as 'bearer', with their token."),
    ] = False
    secret: Annotated[
        str | None,
        setting(
            "webhook_token",
            "webhook_secret",
            secret=True,
            template=False,
            description="The token, password or signing secret; left empty, the server makes one.",
        ),
    ] = None
    credential_id: Annotated[
        str | None,
        setting(
            "basic_auth_credential_id",
            "header_auth_credential_id",
            "credential",
            template=False,
            description="The credential that holds the secret instead: its 'password', 'token' or 'secret'.",
        ),
    ] = None
    username: Annotated[
        str | None,
        setting(
            template=False,
            description="Who the caller must be.",
            when={"authentication": ["basic", "basic_auth"]},
        ),
    ] = None
    header: Annotated[
        str | None,
        setting(
            "header_name",
            "signature_header",
            template=False,
            description="The header with the token or the signature.",
            when={"authentication": ["header", "header_auth", "hmac"]},
        ),
    ] = None
    algorithm: Annotated[
        Literal["sha1", "sha256", "sha384", "sha512"],
        setting(template=False, description="Of the signature.", when={"authentication": ["hmac"]}),
    ] = "sha256"
    encoding: Annotated[
        Literal["hex", "base64"],
        setting(template=False, description="Of the signature.", when={"authentication": ["hmac"]}),
    ] = "hex"
    prefix: Annotated[
        str,
        setting(
            template=False,
            description="What stands before the signature, as in 'sha256='.",
            when={"authentication": ["hmac"]},
        ),
    ] = ""
    timestamp_header: Annotated[
        str | None,
        setting(
            template=False,
            description="The header with the Unix time that is signed as '<time>.<body>'.",
            when={"authentication": ["hmac"]},
        ),
    ] = None
    tolerance_seconds: Annotated[
        int,
        setting(template=False, description="How old, or ahead of us, a signed time may be."),
        msgspec.Meta(ge=1, le=3600),
    ] = 300
    allowed_ips: Annotated[
        str | tuple[str, ...],
        setting(
            template=False, description="Addresses and networks that may call, one per line; empty means all."
        ),
    ] = ""
    dedupe: Annotated[
        Literal["auto", "none", "body"],
        setting(
            template=False,
            description="What makes two deliveries the same: the provider's id, nothing, or the body.",
        ),
    ] = "auto"
    dedupe_header: Annotated[
        str | None, setting(template=False, description="The header that tells deliveries apart, instead.")
    ] = None
    dedupe_pointer: Annotated[
        str | None,
        setting(template=False, description="The JSON pointer to what tells deliveries apart, as in /id."),
    ] = None
    answer: Annotated[
        Answer,
        setting(
            "response_mode",
            template=False,
            description="What callers get: 202 at once, the run's result, what a RespondToWebhook says, or "
            "the text as it is made. 'auto' is 'step' where there is a RespondToWebhook, else 'result'.",
        ),
    ] = "auto"
    timeout: Annotated[
        float,
        setting(
            "webhook_timeout",
            "timeout_seconds",
            template=False,
            description="Seconds that a caller waits at most; then it is told where the run is.",
        ),
        msgspec.Meta(ge=1, le=300),
    ] = 30
    status: Annotated[
        int,
        setting(template=False, description="The status of an answer at once.", when={"answer": ["at_once"]}),
        msgspec.Meta(ge=200, le=299),
    ] = 202
    body: Annotated[
        Any,
        setting(template=False, description="The body of an answer at once.", when={"answer": ["at_once"]}),
    ] = None
    max_payload_size: Annotated[
        int,
        setting("max_body_kb", template=False, description="Kilobytes that a body may have."),
        msgspec.Meta(ge=1, le=100_000),
    ] = 1024
    rate_limit_per_minute: Annotated[
        int,
        setting("per_minute", template=False, description="Deliveries taken a minute; 0 sets no limit."),
        msgspec.Meta(ge=0, le=100_000),
    ] = 0
    enable_cors: Annotated[
        bool, setting("cors", template=False, description="Whether pages of other sites may call it.")
    ] = False


class Inputs(msgspec.Struct, frozen=True):
    pass


class Outputs(msgspec.Struct, frozen=True):
    webhook_data: Annotated[
        Any,
        port(
            "webhook_endpoint",
            "output",
            "webhook_runnable",
            "data",
            description="The body: JSON and forms as objects, else a text; without a body, the query.",
        ),
    ] = None
    payload: Annotated[Any, port(description="The same, by the name that editors' templates use.")] = None
    headers: Annotated[
        dict[str, Any], port("webhook_config", description="The caller's headers, without secret ones.")
    ] = {}
    query: Annotated[dict[str, Any], port(description="What stands behind the '?' of the address.")] = {}
    method: Annotated[str, port("webhook_token", description="How it was called.")] = ""


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    call = ctx.trigger
    return Outputs(
        ctx.input, ctx.input, call.get("headers") or {}, call.get("query") or {}, call.get("method") or ""
    )


def hook(config: Config) -> Hook:
    """What the settings say, in our own words.

    Raises:
        Mistakes: They do not go together.
    """
    return msgspec.convert(
        {
            "path": config.path.strip().strip("/") or None,
            "methods": _listed(config.method, upper=True) or ["POST"],
            "authentication": authentication(config),
            "credential_id": config.credential_id or None,
            "username": config.username,
            "header": config.header or ("Authorization" if config.authentication == "header_auth" else None),
            "algorithm": config.algorithm,
            "encoding": config.encoding,
            "prefix": config.prefix,
            "timestamp_header": config.timestamp_header,
            "tolerance_seconds": config.tolerance_seconds,
            "allowed_ips": _listed(config.allowed_ips),
            "dedupe": config.dedupe,
            "dedupe_header": config.dedupe_header,
            "dedupe_pointer": config.dedupe_pointer,
            "answer": config.answer,
            "timeout_seconds": config.timeout,
            "status": config.status,
            "body": config.body,
            "max_body_kb": config.max_payload_size,
            "per_minute": config.rate_limit_per_minute,
            "cors": config.enable_cors,
        },
        Hook,
    )


def secret(config: Config) -> str | None:
    """The secret that stands in the drawing."""
    return config.secret if config.secret and config.secret != WELL_KNOWN else None


def authentication(config: Config) -> Authentication:
    match config.authentication:
        case "basic_auth":
            return "basic"
        case "header_auth":
            return "header"
        case "":
            return "bearer" if config.authentication_required else "none"
        case known:
            return known


def _listed(given: str | Sequence[str], *, upper: bool = False) -> list[str]:
    parts = given.replace(",", "\n").splitlines() if isinstance(given, str) else given
    found = [part.strip() for part in parts if part.strip()]
    return [part.upper() for part in found] if upper else found


def mistakes(config: Config) -> Iterable[tuple[str, Keys]]:
    """What is wrong with the settings together."""
    try:
        hook(config)
    except Mistakes as exc:
        for message, keys in exc.found:
            yield message, (_KEYS.get(str(keys[0]), keys[0]), *keys[1:]) if keys else ()
    except msgspec.ValidationError:
        known = "GET, HEAD, POST, PUT, PATCH, DELETE"
        yield f"'method' is one or several of {known}, not {config.method!r}", ("method",)
    given, how = secret(config), authentication(config)
    if given is not None and how != "none" and (wrong := wrong_with_secret(how, given)):
        yield wrong, ("secret",)


NODE = NodeType.step(
    run,
    "WebhookTrigger",
    "Webhook",
    trigger=True,
    aliases=("Webhook", "WebhookTriggerNode"),
    ignores=(
        "webhook_environment",
        "webhook_exact_url",
        "allowed_event_types",
        "node_behavior",
        "tenant_id",
        "tenant_isolation",
        "circuit_breaker",
        "circuit_breaker_enabled",
        "cache_enabled",
        "cache_ttl",
    ),
    called=("webhook_data", "webhook_trigger"),
    hook=hook,
    hook_secret=secret,
    mistakes=mistakes,
    icon="webhook",
    examples=(
        {"path": "orders", "method": "POST", "authentication": "standard"},
        {"method": "POST", "authentication": "github", "answer": "at_once"},
    ),
)
