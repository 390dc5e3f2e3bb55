"""The server's settings, from the environment and `.env`; nothing else reads `os.environ`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from dotenv import dotenv_values
from msgspec import Meta
from msgspec.structs import fields

PREFIX = "FLOWSERVER_"


class InvalidSetting(ValueError):
    """An environment variable holds what its setting does not take."""


def about(description: str, *, secret: bool = False, also: str | None = None) -> Meta:
    """Describe a setting; `also` is another environment variable that it is taken from."""
    return Meta(description=description, extra={"secret": secret, "also": also})


Days = Annotated[float, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
WebAddress = Annotated[str, Meta(pattern=r"^https?://[^/\s]+")]
Host = Annotated[str, Meta(pattern=r"^(\[[\w:.]+\]|[^/?#@*\\\s:]+)(:\d{1,5})?$")]
Network = Annotated[str, Meta(pattern=r"^[0-9a-fA-F:.]+(/\d{1,3})?$")]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator can choose. Every field is `FLOWSERVER_` and its name in capitals."""

    host: Annotated[str, about("Address to listen on.")] = "127.0.0.1"
    port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)], about("Port to listen on; the next free one if it is taken.")
    ] = 8000
    data_dir: Annotated[Path, about("Where the embedded Postgres and the API key are kept.")] = Path(
        ".flowserver"
    )
    database_url: Annotated[
        str | None, about("A Postgres of your own (15 or later, with pgvector) instead.", secret=True)
    ] = None
    api_key: Annotated[
        Annotated[str, Meta(min_length=16)] | None,
        about("An API key of the default organisation, instead of a made one.", secret=True),
    ] = None
    encryption_keys: Annotated[
        tuple[str, ...],
        about(
            "Keys that credentials are sealed with, as id:base64 or base64 with commas; the first one seals.",
            secret=True,
        ),
    ] = ()
    openai_api_key: Annotated[
        str | None,
        about("For chat models whose drawing gives none.", secret=True, also="OPENAI_API_KEY"),
    ] = None
    openai_base_url: Annotated[
        WebAddress | None,
        about("The server of chat models whose drawing gives none.", also="OPENAI_BASE_URL"),
    ] = None
    outbound_allow: Annotated[
        tuple[Host, ...],
        about("Hosts, as name[:port] with commas, that workflows may reach although they are private."),
    ] = ()
    outbound_connections: Annotated[
        Annotated[int, Meta(ge=1)],
        about(
            "The most connections that workflows have open at a time, to public hosts and to allowed ones."
        ),
    ] = 1000
    public_url: Annotated[
        WebAddress | None,
        about("How others reach this server, as in https://flows.example.com; shown addresses begin so."),
    ] = None
    trusted_proxies: Annotated[
        tuple[Network, ...],
        about("Addresses or networks of proxies in front of this server, whose X-Forwarded-For counts."),
    ] = ()
    deliveries_per_minute: Annotated[
        Annotated[int, Meta(ge=0)],
        about("How many webhook deliveries of one organisation are taken a minute; 0: no limit."),
    ] = 6000
    max_runs: Annotated[
        Annotated[int, Meta(ge=1)], about("How many runs this process executes at the same time.")
    ] = 64
    max_attempts: Annotated[
        Annotated[int, Meta(ge=1)],
        about("How many processes may die under a run, with nothing of it kept in between; then it fails."),
    ] = 2
    max_body_bytes: Annotated[Annotated[int, Meta(ge=1024)], about("The largest request body.")] = 10_000_000
    max_output_bytes: Annotated[
        Annotated[int, Meta(ge=1024)], about("What all steps of a run together may give, as JSON.")
    ] = 100_000_000
    max_upload_mb: Annotated[
        Annotated[float, Meta(gt=0, le=1000)], about("The largest file that can be uploaded, in megabytes.")
    ] = 50
    allow_code: Annotated[bool, about("Whether workflows may run Python code, in a sandbox.")] = False
    tavily_api_key: Annotated[
        str | None,
        about("For web searches whose drawing gives none.", secret=True, also="TAVILY_API_KEY"),
    ] = None
    tavily_base_url: Annotated[
        WebAddress | None, about("The server of web searches, in place of Tavily's own.")
    ] = None
    lease_seconds: Annotated[
        Seconds, about("How long a run belongs to a process that gives no sign of life.")
    ] = 10
    stall_seconds: Annotated[
        Annotated[float, Meta(ge=0)],
        about("How long this process may stand still before it ends itself; 0: it never does."),
    ] = 30
    grace_seconds: Annotated[
        Annotated[float, Meta(ge=0)], about("How long running steps may go on when the server is stopped.")
    ] = 10
    keep_runs_days: Annotated[
        Days,
        about("Days that a run is kept after its end, if its workflow says nothing; 0: for ever."),
    ] = 365
    keep_events_days: Annotated[Days, about("The same for a run's events.")] = 90
    keep_checkpoints_days: Annotated[
        Days, about("The same for a run's checkpoints; the newest state of a session stays.")
    ] = 30
    keep_deliveries_days: Annotated[
        Days, about("Days that webhook deliveries, callbacks and firings are kept; 0: for ever.")
    ] = 30
    log_level: Annotated[LogLevel, about(f"How much is logged: {', '.join(get_args(LogLevel))}.")] = "info"
    log_format: Annotated[LogFormat, about("How it is logged: text, or json with an object per line.")] = (
        "text"
    )
    metrics_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        about(
            "Port on which 'flowserver worker' answers /metrics and /health; without it, it does not listen."
        ),
    ] = None
    otlp_endpoint: Annotated[
        WebAddress | None,
        about("Where traces are sent, as OTLP over HTTP.", also="OTEL_EXPORTER_OTLP_ENDPOINT"),
    ] = None


class Origin(msgspec.Struct, frozen=True):
    """A setting as `flowserver settings` shows it."""

    name: str
    value: str
    origin: str
    description: str


def load(environment: Mapping[str, str] | None = None, env_file: Path = Path(".env")) -> Settings:
    """Read the settings; the environment wins over `env_file`.

    Raises:
        InvalidSetting: With the variable, what it holds and what it takes.
    """
    return msgspec.structs.replace(
        Settings(), **{name: value for name, (value, _) in _found(environment, env_file)}
    )


def listed(environment: Mapping[str, str] | None = None, env_file: Path = Path(".env")) -> list[Origin]:
    """Every setting with its value, where it comes from and what it means; secrets are hidden."""
    found = dict(_found(environment, env_file))
    defaults = Settings()
    rows: list[Origin] = []
    for info in fields(Settings):
        value, origin = found.get(info.name, (getattr(defaults, info.name), "default"))
        meta = _meta(info.type)
        hidden = "(hidden)" if meta["secret"] and value else None
        shown = ",".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
        rows.append(Origin(variable(info.name), hidden or shown, origin, meta["description"]))
    return rows


def secrets(settings: Settings) -> list[str]:
    """The values that nobody may be shown."""
    hidden = [info.name for info in fields(Settings) if _meta(info.type)["secret"]]
    values = [getattr(settings, name) for name in hidden]
    return [each for value in values for each in ((value,) if isinstance(value, str) else value or ())]


def variable(name: str) -> str:
    return PREFIX + name.upper()


def _found(environment: Mapping[str, str] | None, env_file: Path) -> list[tuple[str, tuple[Any, str]]]:
    given = os.environ if environment is None else environment
    file = {key: value for key, value in dotenv_values(env_file).items() if value is not None}
    found: list[tuple[str, tuple[Any, str]]] = []
    for info in fields(Settings):
        for key in filter(None, (variable(info.name), _meta(info.type)["also"])):
            origin, raw = ("environment", given[key]) if key in given else (str(env_file), file.get(key))
            if raw and raw.strip():
                found.append((info.name, (_read(key, raw.strip(), info.type), f"{origin} {key}")))
                break
    return found


def _read(key: str, raw: str, kind: Any) -> Any:
    value: Any = raw
    if key.endswith("_KEY") and not (raw.isascii() and raw.isprintable()):
        raise InvalidSetting(f"{key}: its value has a character that no key has; a key is printable ASCII")
    if "tuple" in str(kind):
        value = [part.strip() for part in raw.split(",") if part.strip()]
    try:
        return Path(raw) if "Path" in str(kind) else msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as exc:
        meta = _meta(kind)
        shown = "its value" if meta["secret"] else repr(raw)
        wanted = str(exc).split(", got ")[0]  # what it got is a text always: an environment has nothing else
        raise InvalidSetting(f"{key}: {shown} does not fit: {wanted} ({meta['description']})") from None


def _meta(kind: Any) -> dict[str, Any]:
    for meta in getattr(kind, "__metadata__", ()):
        if isinstance(meta, Meta) and meta.extra and "also" in meta.extra:
            return {"description": meta.description, **meta.extra}
    raise TypeError(f"setting without about(): {kind}")
