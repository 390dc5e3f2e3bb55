"""What a drawing says of itself as a whole, in its `settings`: variables, limits, parallel steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec.structs import asdict

from graphs.mistakes import examine
from graphs.problems import Problems, pointer
from graphs.templates import is_name
from nodes.contract import NodeError

Reducer: TypeAlias = Literal["replace", "add", "append", "merge", "max", "min"]


class VariableSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value that the steps of a run share under a name."""

    initial: Any = None
    reducer: Reducer = "replace"
    """What a new value does: it takes the place of the old one, is added to it, or ends a list of them."""
    persistent: bool = False
    """Whether the next run of the same session goes on with it."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one run may use up; what goes beyond ends it as `limit_exceeded`."""

    steps: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Steps that run, every round and item counted."""
    seconds: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Time in which it executes; waiting for an answer does not count."""
    tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Input and output tokens of all models together."""
    tool_calls: Annotated[int, msgspec.Meta(ge=1)] | None = None
    model_calls: Annotated[int, msgspec.Meta(ge=1)] | None = None
    output_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """What all steps together give, as JSON."""

    def under(self, other: Limits) -> Limits:
        """Both of them: of each limit the smaller one."""
        mine, theirs = asdict(self), asdict(other)
        both = {name: [each for each in (mine[name], theirs[name]) if each is not None] for name in mine}
        return Limits(**{name: min(found) for name, found in both.items() if found})


NO_LIMITS = Limits()

Days: TypeAlias = Annotated[float, msgspec.Meta(gt=0)] | None


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how many days after a run's end something of it is kept; what is left open, the server decides."""

    runs: Days = None
    """The run itself, with its input and output."""
    events: Days = None
    checkpoints: Days = None
    """What it can be forked from; the newest state of a session stays."""

    def over(self, other: Retention) -> Retention:
        """This one, and what it leaves open as `other` says."""
        mine, theirs = asdict(self), asdict(other)
        return Retention(**{name: theirs[name] if mine[name] is None else mine[name] for name in mine})


AS_THE_SERVER_SAYS = Retention()
MAX_CONCURRENCY = 16


class Options(msgspec.Struct, frozen=True):
    """A drawing's settings; what else stands there is the editor's."""

    variables: Mapping[str, VariableSpec] = {}
    limits: Limits = Limits()
    retention: Retention = AS_THE_SERVER_SAYS
    max_concurrency: int = MAX_CONCURRENCY
    """How many steps of a run may do something at the same time."""


_Kind = TypeVar("_Kind", VariableSpec, Limits, Retention)
_KNOWN = ("variables", "limits", "retention", "max_concurrency", "error_workflow", "error_workflow_id")


def read_options(settings: Mapping[str, Any], problems: Problems) -> Options:
    """Read the settings of a drawing; what is wrong is in `problems`, and left out."""
    variables = {}
    for name, given in _object(settings, "variables", problems).items():
        variables[name] = _variable(name, given, problems) or VariableSpec()
    limits = _read(_object(settings, "limits", problems), Limits, ("limits",), problems) or NO_LIMITS
    keep = _read(_object(settings, "retention", problems), Retention, ("retention",), problems)
    for key in settings:
        if hint := None if key in _KNOWN else problems.did_you_mean(key, _KNOWN):
            message = f"{key!r} is no setting of a workflow, and means nothing"
            problems.warning("unknown_setting", "", pointer("settings", key), message, hint)
    return Options(
        variables, limits, keep or AS_THE_SERVER_SAYS, _concurrency(settings.get("max_concurrency"), problems)
    )


def _variable(name: str, given: Any, problems: Problems) -> VariableSpec | None:
    spec = _read(given, VariableSpec, ("variables", name), problems)
    at = pointer("settings", "variables", name)
    if not is_name(name):
        message = f"{name!r} is no name for a variable: a letter or '_', then letters, digits, '_' and '-'"
        problems.error("bad_settings", "", at, message)
    if spec is None or spec.initial is None:
        return spec
    at += pointer("initial")
    try:
        reduce(spec.reducer, spec.initial, [])
    except NodeError as exc:
        problems.error("bad_settings", "", at, f"{name!r}: {exc}")
    if "{{" in str(spec.initial):
        message = f"{name!r} begins with what is written in 'initial': nothing is put in for its {{{{ … }}}}"
        problems.warning("unused_config", "", at, message)
    return spec


def _concurrency(found: Any, problems: Problems) -> int:
    if found is None:
        return MAX_CONCURRENCY
    if isinstance(found, int) and not isinstance(found, bool) and 1 <= found <= 1000:
        return found
    message = f"'max_concurrency' is {_shown(found)}; allowed is a whole number from 1 to 1000"
    problems.error("bad_settings", "", pointer("settings", "max_concurrency"), message)
    return MAX_CONCURRENCY


def _object(settings: Mapping[str, Any], key: str, problems: Problems) -> Mapping[str, Any]:
    found = settings.get(key)
    if found is None or isinstance(found, dict):
        return found or {}
    problems.error("bad_settings", "", pointer("settings", key), f"{key!r} is an object, not {_shown(found)}")
    return {}


def _read(given: Any, kind: type[_Kind], at: tuple[str, ...], problems: Problems) -> _Kind | None:
    """Read an object; what could be meant where something in it is wrong, if that is known."""
    where = ".".join(at)
    if not isinstance(given, dict):
        message = f"{where!r} is an object of {', '.join(kind.__struct_fields__)}, not {_shown(given)}"
        problems.error("bad_settings", "", pointer("settings", *at), message)
        return None
    options, mistakes = examine(given, kind)
    for each in mistakes:
        hint = problems.did_you_mean(each.found, each.allowed) if each.found else None
        problems.error("bad_settings", "", pointer("settings", *at, *each.at), each.message(where), hint)
    return options[0] if options else None


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:80]


def reduce(reducer: str, value: Any, new: Sequence[Any]) -> Any:
    """What a variable of `value` becomes when it is given each of `new`.

    Raises:
        NodeError: A value does not suit the reducer.
    """
    if reducer == "append":
        if not isinstance(value, list | None):
            raise _unsuitable(reducer, "a list", value)
        return [*(value or []), *new]
    if not isinstance(value, _STARTS.get(reducer, object)) or (
        reducer in _NUMERIC and isinstance(value, bool)
    ):
        raise _unsuitable(reducer, _WANTED[reducer], value)
    for each in new:
        value = _REDUCERS[reducer](value, each)
    return value


def _add(old: Any, new: Any) -> Any:
    if old is None or new is None:
        return new if old is None else old
    if _is_number(old) and _is_number(new):
        return old + new
    if type(old) is type(new) and isinstance(old, str | list):
        return old + new
    raise _unsuitable("add", "two numbers, two texts or two lists", new)


def _pick(which: str, choose: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def pick(old: Any, new: Any) -> Any:
        if old is None or new is None:
            return new if old is None else old
        if (_is_number(old) and _is_number(new)) or (isinstance(old, str) and isinstance(new, str)):
            return choose(old, new)
        raise _unsuitable(which, "two numbers or two texts", new)

    return pick


def _merge(old: Any, new: Any) -> Any:
    for each in (old, new):
        if not isinstance(each, dict | None):
            raise _unsuitable("merge", "objects", each)
    return {**(old or {}), **(new or {})}


_REDUCERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "replace": lambda old, new: new,
    "add": _add,
    "merge": _merge,
    "max": _pick("max", max),
    "min": _pick("min", min),
}


_STARTS: Mapping[str, Any] = {
    "add": int | float | str | list | None,
    "merge": dict | None,
    "max": int | float | str | None,
    "min": int | float | str | None,
}
_NUMERIC = ("add", "max", "min")
_WANTED = {
    "add": "numbers, texts or lists",
    "merge": "objects",
    "max": "numbers or texts",
    "min": "numbers or texts",
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unsuitable(reducer: str, wanted: str, found: Any) -> NodeError:
    shown = msgspec.json.encode(found).decode()[:80]
    return NodeError(
        f"the reducer {reducer!r} takes {wanted}, not {shown}", code="bad_variable", is_final=True
    )
