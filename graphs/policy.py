"""What every step may have beside its own settings: how it joins, fails, is retried and given up."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import fields

from graphs.mistakes import examine
from graphs.problems import Problems, pointer
from graphs.spec import NodeSpec

_ALSO = {"max_iterations": "max_rounds"}


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Wait `delay * factor ** n` seconds before attempt n + 2, at most `max_delay`, less a random part."""

    attempts: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3
    delay: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 1.0
    factor: Annotated[float, msgspec.Meta(ge=1, le=10)] = 2.0
    max_delay: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 60.0
    jitter: bool = True
    """Wait a random time between half of the delay and the delay."""

    def before(self, attempt: int, random: float, wished: float | None) -> float:
        """Seconds to wait before `attempt` (2 is the first retry); `wished` is what the other side asks."""
        delay = min(self.delay * self.factor ** (attempt - 2), self.max_delay)
        if self.jitter:
            delay *= 0.5 + random / 2
        return delay if wished is None else min(max(wished, delay), 3600.0)


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a step joins what leads to it, and what becomes of it when it fails."""

    join: Literal["all", "any"] = "all"
    """`all`: wait until every arrow is decided. `any`: run at the first live arrow, ignore the rest."""
    retry: Annotated[int, msgspec.Meta(ge=1, le=20)] | Retry | None = None
    """How often a failing step is tried, or the details of it."""
    timeout: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None
    """Seconds that one attempt may take."""
    on_error: Literal["fail", "port", "default"] = "fail"
    default: Any = None
    """What the step gives when it fails and `on_error` is `default`."""
    max_rounds: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    """For the first step of a loop: the most rounds."""

    @property
    def retries(self) -> Retry:
        """How it is tried again; once only where nothing is said."""
        match self.retry:
            case None:
                return Retry(attempts=1)
            case int():
                return Retry(attempts=self.retry)
            case _:
                return self.retry


PLAIN = Policy()

KEYS = (*(info.name for info in fields(Policy)), *_ALSO)
"""The keys of `node.data` that are the policy's, unless the node type has a setting of that name."""


_RETRY = tuple(info.name for info in fields(Retry))
_CHOICES = {"join": ("all", "any"), "on_error": ("fail", "port", "default")}
_ALLOWED = {
    "join": "'all' or 'any'",
    "on_error": "'fail', 'port' or 'default'",
    "retry": f"a number of attempts from 1 to 20, or an object of {', '.join(_RETRY)}",
    "timeout": "a number of seconds above 0, at most 86400",
    "max_rounds": "a whole number from 1 to 10000",
}


def read_policy(node: NodeSpec, own: Collection[str], problems: Problems) -> Policy:
    """Read the policy of `node`; its type's `own` settings come first. What is wrong is in `problems`."""
    policy = Policy()
    for key in KEYS:
        if key in own or node.config.get(key) in (None, ""):
            continue
        name, value = _ALSO.get(key, key), node.config[key]
        if name == "retry" and isinstance(value, str) and value.isdigit():
            value = int(value)
        try:
            read = value if name == "default" else _converted(name, value)
        except msgspec.ValidationError:
            _refuse(key, name, value, node, problems)
            continue
        policy = msgspec.structs.replace(policy, **{name: read})
    if policy.on_error == "default" and "default" not in node.config:
        message = "'on_error' is 'default', but there is no 'default' to go on with"
        problems.error("missing_config", node.id, node.at("data", "on_error"), message)
    _means_something_else(policy, node, problems)
    return policy


def _means_something_else(policy: Policy, node: NodeSpec, problems: Problems) -> None:
    """Find what is allowed, and hardly what its author wants."""
    if "{{" in str(policy.default):
        message = "'default' stays as it is written: nothing is put in for its {{ … }}"
        problems.warning("unused_config", node.id, node.at("data", "default"), message)
    retry = policy.retry
    if isinstance(retry, Retry) and retry.delay > retry.max_delay:
        message = (
            f"'retry' waits no longer than its 'max_delay', {retry.max_delay:g} seconds, and 'delay' is more"
        )
        problems.warning("unused_config", node.id, node.at("data", "retry"), message)


def _converted(name: str, value: Any) -> Any:
    return getattr(msgspec.convert({name: value}, Policy, strict=False), name)


def _refuse(key: str, name: str, value: Any, node: NodeSpec, problems: Problems) -> None:
    at = node.at("data", key)
    if isinstance(value, dict) and name == "retry":
        for each in examine(value, Retry)[1]:
            hint = problems.did_you_mean(each.found, each.allowed) if each.found else None
            problems.error("bad_config", node.id, at + pointer(*each.at), each.message(key), hint)
        return
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    hint = problems.did_you_mean(value, _CHOICES.get(name, ())) if isinstance(value, str) else None
    message = f"{key!r} is {shown[:80]!r}; allowed is {_ALLOWED[name]}"
    problems.error("bad_config", node.id, at, message, hint)
