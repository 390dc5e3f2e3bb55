"""A node's settings: other spellings joined, templates read, every value converted to its field's type."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_args

import msgspec
from msgspec import inspect as shapes
from msgspec.structs import FieldInfo
from msgspec.structs import fields as read_fields

from graphs.policy import KEYS as POLICY
from graphs.problems import Problems, listed, pointer
from graphs.spec import NodeSpec
from graphs.templates import Lookup, Path, Template, TemplateError, parse, render
from nodes.contract import NodeError, NodeType
from nodes.texts import to_text

fields = cache(read_fields)
"""Remembered, as every run of a step asks for them."""

CREDENTIALS = ("credential_id", "credential")
"""Keys by which editors refer to a credential, on nodes of any type."""

_MOST_TRIES = 50
"""How often an open setting is converted to check it: it may hold thousands of templates."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a node: complete where the drawing says all, else to be filled for each run."""

    type: type[msgspec.Struct]
    fixed: Mapping[str, Any]
    open: Mapping[str, Any] = field(default_factory=dict)
    """Field -> its raw value, with a `Template` wherever a text holds paths."""
    paths: tuple[tuple[Path, str], ...] = ()
    """Every path, with the JSON pointer of its text."""
    outlines: Mapping[str, Any] = field(default_factory=dict)
    """Open field -> its value with other values in place of the templates, where it is made of structs."""
    ready: msgspec.Struct | None = None
    credential: str | None = None
    """The id of the credential that the drawing names."""
    valid: bool = True
    """Whether nothing is wrong; if something is, these are only searched for more mistakes."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of secret settings."""
        hidden = [info.name for info in fields(self.type) if extra(info.type, "secret", False)]
        return tuple(self.fixed[name] for name in hidden if self.fixed.get(name))

    def provisional(self) -> msgspec.Struct:
        """What is known before a run; settings that it fills are outlined, or have their defaults, or `None`.

        Raises:
            ValueError, NodeError: What is known does not go together.
        """
        if self.ready is not None:
            return self.ready
        known = {
            info.name: None
            for info in fields(self.type)
            if info.required or (info.default is msgspec.UNSET and info.name in self.open)
        }
        return self.type(**(known | dict(self.outlines) | dict(self.fixed)))

    def fill(self, lookup: Lookup) -> msgspec.Struct:
        """Return the typed settings of this run.

        Raises:
            Missing: A path leads to nothing.
            NodeError: What came out does not fit the setting.
        """
        if self.ready is not None:
            return self.ready
        filled = dict(self.fixed)
        for info in fields(self.type):
            if info.name in self.open:
                raw = _filled(self.open[info.name], lookup, texts=_takes_only_texts(info.type))
                try:
                    filled[info.name] = convert(raw, info.type)
                except msgspec.ValidationError as exc:
                    raise NodeError(_Mistake.of(exc).message(info, raw), code="bad_config") from None
        try:
            return self.type(**filled)
        except ValueError as exc:
            raise NodeError(str(exc), code="bad_config") from None


def read_settings(node: NodeSpec, node_type: NodeType, problems: Problems) -> Settings:
    """Read the settings of `node`; what is wrong is in `problems`."""
    before = problems.errors
    known = {info.name: info for info in fields(node_type.config)}
    reading = _Reading(node, problems)
    for name, key in _spelled(node, node_type, known, problems).items():
        reading.take(known[name], key, node.config[key])
    for name, info in known.items():
        if info.required and name not in reading.seen:
            message = f"{node.name!r} ({node_type.name}) needs {name!r}: {_wanted(info.type)}"
            problems.error("missing_config", node.id, node.at_data, message)
    credential = next((str(node.data[key]) for key in CREDENTIALS if node.data.get(key)), None)
    settings = Settings(
        node_type.config,
        reading.fixed,
        reading.open,
        tuple(reading.paths),
        reading.outlines,
        credential=credential,
    )
    if problems.errors > before:
        return dataclasses.replace(settings, valid=False)
    try:
        if not reading.open:
            return dataclasses.replace(settings, ready=node_type.config(**reading.fixed))
        if node_type.routes is not None:  # its ports are needed now
            settings.provisional()
    except (ValueError, NodeError) as exc:  # what the settings say together is wrong
        problems.error("bad_config", node.id, node.at_data, str(exc))
        return dataclasses.replace(settings, valid=False)
    return settings


def _spelled(
    node: NodeSpec, node_type: NodeType, known: Mapping[str, FieldInfo], problems: Problems
) -> dict[str, str]:
    """Setting -> the key that gives it in this drawing; a setting's own name wins over other spellings."""
    also = {each: name for name, info in known.items() for each in extra(info.type, "also", ())}
    found: dict[str, str] = {}
    for key, value in node.config.items():
        name = key if key in known else also.get(key)
        if name is None:
            if value not in (None, "") and key not in (*node_type.ignores, *CREDENTIALS, *POLICY):
                names = [*known, *also]
                message = f"{node_type.name} has no setting {key!r}; it has: {listed(known)}"
                hint = problems.did_you_mean(key, names)
                problems.warning("unknown_config", node.id, node.at("data", key), message, hint)
        elif not _absent(value, known[name].type) and (key == name or name not in found):
            found[name] = key
    return found


@dataclass(slots=True)
class _Reading:
    """The settings of one node while they are read."""

    node: NodeSpec
    problems: Problems
    fixed: dict[str, Any] = field(default_factory=dict)
    open: dict[str, Any] = field(default_factory=dict)
    paths: list[tuple[Path, str]] = field(default_factory=list)
    outlines: dict[str, Any] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def take(self, info: FieldInfo, key: str, value: Any) -> None:
        self.seen.add(info.name)
        at = self.node.at("data", key)
        before = len(self.paths)
        raw = self._read(value, at) if extra(info.type, "template", True) else value
        if len(self.paths) > before:
            self.open[info.name] = raw
            if _is_made_of_structs(info.type) and not isinstance(raw, Template):
                self._outline(info, raw, at)
        else:
            self._convert(info, value, at)

    def _read(self, value: Any, at: str) -> Any:
        """`value` with its texts read as templates."""
        match value:
            case str():
                return self._template(value, at)
            case list():
                return [self._read(item, f"{at}/{index}") for index, item in enumerate(value)]
            case dict():
                return {key: self._read(item, at + pointer(key)) for key, item in value.items()}
            case _:
                return value

    def _template(self, text: str, at: str) -> Template | str:
        try:
            template = parse(text)
        except TemplateError as exc:
            self.problems.error("bad_template", self.node.id, at, str(exc))
            return text
        if template is None:
            return text
        self.paths += [(path, at) for path in template.paths]
        return template

    def _convert(self, info: FieldInfo, value: Any, at: str) -> None:
        try:
            self.fixed[info.name] = convert(value, info.type)
        except msgspec.ValidationError as exc:
            self._refuse(_Mistake.of(exc), info, value, at)

    def _refuse(self, mistake: _Mistake, info: FieldInfo, value: Any, at: str) -> None:
        found = value if isinstance(value, str) and not mistake.keys else mistake.unknown_choice
        hint = self.problems.did_you_mean(found, _choices(info.type, mistake.keys)) if found else None
        if not isinstance(value, str):
            at += pointer(*mistake.keys)
        self.problems.error("bad_config", self.node.id, at, mistake.message(info, value), hint)

    def _outline(self, info: FieldInfo, raw: Any, at: str) -> None:
        """Convert an open setting with its templates' own texts, or other values where no text may be.

        What is wrong with a value that came in place of a template, or because of one, is no mistake.
        """
        value = _with_texts(raw)
        others: dict[tuple[str | int, ...], Iterator[Any]] = {}
        for _ in range(_MOST_TRIES):
            try:
                self.outlines[info.name] = msgspec.convert(value, info.type, strict=False)
                return
            except msgspec.ValidationError as exc:
                mistake = _Mistake.of(exc)
            if _UNNAMED in mistake.inner:
                return
            within = (each for each in reversed(others) if each[: len(mistake.keys)] == mistake.keys)
            leaf = _template_on_the_way(raw, mistake.keys) or next(within, None)
            if leaf is None:
                self._refuse(mistake, info, value, at)
                return
            allowed = others.setdefault(leaf, iter([*_choices(info.type, leaf), 1, True, [], {}, None]))
            try:
                _put(value, leaf, next(allowed))
            except StopIteration:
                return


@dataclass(frozen=True, slots=True)
class _Mistake:
    """What msgspec finds wrong with a setting, and the keys that lead to it."""

    reason: str
    inner: str
    keys: tuple[str | int, ...]

    @classmethod
    def of(cls, exc: msgspec.ValidationError) -> _Mistake:
        reason, _, inner = str(exc).removesuffix("`").rpartition(" - at `$")
        if not reason:
            return cls(str(exc), "", ())
        parts = _KEY.findall(inner.partition(_UNNAMED)[0])
        return cls(reason, inner.lstrip("."), tuple(int(index) if index else key for key, index in parts))

    @property
    def unknown_choice(self) -> str:
        """What was found where one of several texts is allowed."""
        head, _, found = self.reason.partition("Invalid enum value ")
        return "" if head else found.strip("'")

    def message(self, info: FieldInfo, value: Any) -> str:
        allowed = f"; allowed is {_wanted(info.type, self.keys)}" if self.unknown_choice else ""
        if self.inner:
            return f"{info.name!r} at {self.inner}: {self.reason}{allowed}"
        if _is_made_of_structs(info.type) and not self.reason.startswith("Expected"):
            return f"{info.name!r}: {self.reason}"
        return _misfit(info, value)


_UNNAMED = "[...]"
"""How msgspec names the way into a value of an object that is no struct."""
_KEY = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


def _with_texts(raw: Any) -> Any:
    """A copy of `raw` with texts in place of its templates."""
    match raw:
        case Template(parts=parts):
            return "".join(part if isinstance(part, str) else f"{{{{ {part.text} }}}}" for part in parts)
        case list():
            return [_with_texts(item) for item in raw]
        case dict():
            return {key: _with_texts(item) for key, item in raw.items()}
        case _:
            return raw


def _template_on_the_way(raw: Any, keys: tuple[str | int, ...]) -> tuple[str | int, ...] | None:
    """The first keys of `keys` if they lead to a template in `raw`."""
    for depth, key in enumerate(keys):
        raw = raw[key]
        if isinstance(raw, Template):
            return keys[: depth + 1]
    return None


def _put(value: Any, keys: tuple[str | int, ...], new: Any) -> None:
    for key in keys[:-1]:
        value = value[key]
    value[keys[-1]] = new


def convert(value: Any, kind: Any) -> Any:
    """Convert `value` as editors save it: numbers and booleans may be texts, lists and objects JSON texts."""
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        try:
            found = _from_json(value)
        except ValueError:
            found = None
        if found is None:
            raise
        return msgspec.convert(found, kind, strict=False)


def _from_json(value: Any) -> Any:
    """What a text of a JSON object or list holds; `None` for any other value.

    Raises:
        ValueError: It begins like one, but is none.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ValueError(f"it is not JSON: {exc}") from None


def spellings(node_type: NodeType) -> set[str]:
    """Every key that gives a setting of `node_type`."""
    return {key for info in fields(node_type.config) for key in (info.name, *extra(info.type, "also", ()))}


def extra(kind: Any, key: str, default: Any) -> Any:
    """What `nodes.contract.setting` or `port` says of a field under `key`."""
    for meta in get_args(kind)[1:]:
        if isinstance(meta, msgspec.Meta) and meta.extra and key in meta.extra:
            return meta.extra[key]
    return default


def _absent(value: Any, kind: Any) -> bool:
    """Editors save an empty text for what was never filled in."""
    return value is None or (value == "" and not _takes_texts(kind))


def _misfit(info: FieldInfo, value: Any) -> str:
    shown = "a secret" if extra(info.type, "secret", False) else _shown(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
    message = f"{info.name!r} is {shown}; allowed is {_wanted(info.type)}"
    try:
        _from_json(value)
    except ValueError as exc:
        return f"{message}; {exc}"
    return message


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else to_text(value)


def _filled(value: Any, lookup: Lookup, *, texts: bool) -> Any:
    if isinstance(value, Template):
        filled = render(value, lookup)
        return to_text(filled) if texts else filled
    if isinstance(value, list):
        return [_filled(item, lookup, texts=texts) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, lookup, texts=texts) for key, item in value.items()}
    return value


def _parts(shape: shapes.Type) -> Iterator[shapes.Type]:
    match shape:
        case shapes.UnionType(types=types):
            for each in types:
                yield from _parts(each)
        case shapes.Metadata(type=inner):
            yield from _parts(inner)
        case _:
            yield shape


@cache
def _shapes(kind: Any) -> tuple[shapes.Type, ...]:
    return tuple(_parts(shapes.type_info(kind)))


def _takes_texts(kind: Any) -> bool:
    return any(isinstance(shape, shapes.StrType | shapes.AnyType) for shape in _shapes(kind))


def _takes_only_texts(kind: Any) -> bool:
    return all(
        isinstance(shape, shapes.StrType | shapes.NoneType | shapes.LiteralType) for shape in _shapes(kind)
    )


def _is_made_of_structs(kind: Any) -> bool:
    """Whether it is a struct, or a list of structs."""
    parts = (part for shape in _shapes(kind) for part in (shape, *_parts_under(shape, 0)))
    return any(isinstance(part, shapes.StructType) for part in parts)


def _shapes_at(kind: Any, keys: tuple[str | int, ...]) -> tuple[shapes.Type, ...]:
    """The shapes of what is under `keys` in a value of `kind`."""
    found = _shapes(kind)
    for key in keys:
        found = tuple(part for shape in found for part in _parts_under(shape, key))
    return found


def _parts_under(shape: shapes.Type, key: str | int) -> Iterator[shapes.Type]:
    match shape:
        case shapes.StructType(fields=inner):
            for each in inner:
                if each.encode_name == key:
                    yield from _parts(each.type)
        case shapes.ListType(item_type=item) | shapes.VarTupleType(item_type=item):
            yield from _parts(item)


def _choices(kind: Any, keys: tuple[str | int, ...] = ()) -> list[str]:
    found = _shapes_at(kind, keys)
    return [str(v) for shape in found if isinstance(shape, shapes.LiteralType) for v in shape.values]


def _wanted(kind: Any, keys: tuple[str | int, ...] = ()) -> str:
    """What a field takes, or what is under `keys` in it, in words."""
    texts = [text for shape in _shapes_at(kind, keys) if (text := _shape_in_words(shape))]
    return " or ".join(dict.fromkeys(texts)) or "nothing"


def _shape_in_words(shape: shapes.Type) -> str:
    match shape:
        case shapes.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case shapes.IntType() | shapes.FloatType():
            noun = "a whole number" if isinstance(shape, shapes.IntType) else "a number"
            return noun + _range(shape.ge, shape.le)
        case shapes.BoolType():
            return "true or false"
        case shapes.StrType():
            return "a non-empty text" if shape.min_length else "a text"
        case shapes.NoneType():
            return ""
        case shapes.ListType() | shapes.VarTupleType() | shapes.TupleType():
            return "a list"
        case shapes.AnyType():
            return "any value"
        case _:
            return "an object"


def _range(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {least:.10g} to {most:.10g}"
    if least is not None:
        return f" of at least {least:.10g}"
    return f" of at most {most:.10g}" if most is not None else ""
