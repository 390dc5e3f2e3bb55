"""A node's settings: other spellings joined, templates read, every value converted to its field's type."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import FieldInfo

from graphs.kinds import (
    convert,
    extra,
    fields,
    is_made_of_structs,
    takes_anything,
    takes_only_texts,
    takes_texts,
    wanted,
)
from graphs.mistakes import Mistake, examine, stand_ins, together, with_texts
from graphs.policy import KEYS as POLICY
from graphs.problems import Problems, listed, pointer
from graphs.spec import NodeSpec
from graphs.templates import Lookup, Path, Template, TemplateError, parse_all, render
from graphs.versions import VERSION, brought_up
from nodes.contract import NodeError, NodeType
from nodes.keys import trimmed
from nodes.texts import to_text

CREDENTIALS = ("credential_id", "credential")
"""Keys by which editors refer to a credential, on nodes of any type."""


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
    valid: bool = True
    """Whether nothing is wrong; if something is, these are only searched for more mistakes."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of secret settings."""
        hidden = [info.name for info in fields(self.type) if extra(info.type, "secret", False)]
        return tuple(text for name in hidden for text in _texts(self.fixed.get(name)))

    @property
    def credentials(self) -> tuple[str, ...]:
        """The ids of the credentials that it uses."""
        names = [info.name for info in fields(self.type) if extra(info.type, "credential", False)]
        return tuple(self.fixed[name] for name in names if self.fixed.get(name))

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
                raw = _filled(self.open[info.name], lookup, texts=takes_only_texts(info.type))
                try:
                    filled[info.name] = convert(raw, info.type)
                except msgspec.ValidationError:
                    _, mistakes = examine(raw, info.type)
                    message = "; ".join(each.message(info.name) for each in mistakes)
                    raise NodeError(message, code="bad_config") from None
        try:
            return self.type(**filled)
        except ValueError as exc:
            raise NodeError(str(exc), code="bad_config") from None


def read_settings(node: NodeSpec, node_type: NodeType, problems: Problems) -> Settings:
    """Read the settings of `node`; what is wrong is in `problems`."""
    before = problems.errors
    node = brought_up(node, node_type, problems)
    if problems.errors > before:  # of settings in words that are not known, nothing more can be said
        return Settings(node_type.config, {}, valid=False)
    return _settings(node, node_type, problems)


def _settings(node: NodeSpec, node_type: NodeType, problems: Problems) -> Settings:
    before = problems.errors
    known = {info.name: info for info in fields(node_type.config)}
    reading = _Reading(node, problems)
    keys = _spelled(node, node_type, known, problems)
    for name, key in keys.items():
        reading.take(known[name], key, node.config[key])
    for name, info in known.items():
        if info.required and name not in keys:
            message = f"{node.name!r} ({node_type.name}) needs {name!r}: {wanted(info.type)}"
            problems.error("missing_config", node.id, node.at_data, message)
            reading.options[name] = stand_ins(info.type, name)
    ready = reading.whole(node_type, keys)
    settings = Settings(
        node_type.config,
        reading.fixed,
        reading.open,
        tuple(reading.paths),
        reading.outlines,
    )
    if problems.errors > before:
        return dataclasses.replace(settings, valid=False)
    if not reading.open:
        return dataclasses.replace(settings, ready=ready)
    try:
        if node_type.routes is not None:  # its ports are needed now
            settings.provisional()
    except (ValueError, NodeError) as exc:
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
            if value not in (None, "") and key not in (*node_type.ignores, *CREDENTIALS, *POLICY, VERSION):
                names = [*known, *also]
                message = f"{node_type.name} has no setting {key!r}; it has: {listed(known)}"
                hint = problems.did_you_mean(key, names)
                problems.warning("unknown_config", node.id, node.at("data", key), message, hint)
        elif not _absent(value, known[name]) and (key == name or name not in found):
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
    options: dict[str, Sequence[Any]] = field(default_factory=dict)
    """Field -> the values that it may have, none where nothing is known of it."""

    def take(self, info: FieldInfo, key: str, value: Any) -> None:
        """Read the value of one setting, as it stands under `key`."""
        at = self.node.at("data", key)
        if extra(info.type, "verbatim", False):
            self._convert(info, value, at)
            return
        paths, errors = len(self.paths), self.problems.errors
        raw = self._read(value, at) if extra(info.type, "template", True) else self._literal(info, value, at)
        if self.problems.errors > errors or (len(self.paths) > paths and is_made_of_structs(info.type)):
            self.options[info.name] = self._examine(info, raw, at)
        elif len(self.paths) > paths:
            self.options[info.name] = stand_ins(info.type, with_texts(raw))
        else:
            self._convert(info, value, at)
        if len(self.paths) > paths:
            self.open[info.name] = raw
            if is_made_of_structs(info.type) and not isinstance(raw, Template) and self.options[info.name]:
                self.outlines[info.name] = self.options[info.name][0]

    def whole(self, node_type: NodeType, keys: Mapping[str, str]) -> msgspec.Struct | None:
        """All of them together, as far as they are known; what does not go together is a problem."""
        if not all(self.options.values()):
            return None
        mistakes: list[Mistake] = []
        made = together(node_type.config, self.options, (), mistakes, node_type.mistakes)
        for each in mistakes:
            at = self.node.at_data
            if each.at and (key := keys.get(str(each.at[0]))):
                inside = () if isinstance(self.node.config[key], str) else each.at[1:]
                at = self.node.at("data", key, *inside)
            self.problems.error("bad_config", self.node.id, at, each.words.removeprefix(": "))
        return made[0] if made else None

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
        mistakes: list[TemplateError] = []
        template = parse_all(text, mistakes)
        for each in mistakes:
            self.problems.error("bad_template", self.node.id, at, str(each))
        if template is None:
            return Template((text,)) if mistakes else text
        self.paths += [(path, at) for path in template.paths]
        return template

    def _literal(self, info: FieldInfo, value: Any, at: str) -> Any:
        """`value` of a setting that must be known before any run."""
        match value:
            case str() if "{{" in value:
                message = f"{info.name!r} must be known before the run, so it takes no {{{{ … }}}}"
                self.problems.error("bad_template", self.node.id, at, message)
                return Template((value,))
            case list():
                return [self._literal(info, item, f"{at}/{index}") for index, item in enumerate(value)]
            case dict():
                return {key: self._literal(info, item, at + pointer(key)) for key, item in value.items()}
            case _:
                return value

    def _convert(self, info: FieldInfo, value: Any, at: str) -> None:
        try:
            self.fixed[info.name] = convert(value, info.type)
            self.options[info.name] = (self.fixed[info.name],)
        except msgspec.ValidationError:
            self.options[info.name] = self._examine(info, value, at)

    def _examine(self, info: FieldInfo, value: Any, at: str) -> Sequence[Any]:
        """Tell all that is wrong with a setting; what it may be."""
        options, mistakes = examine(value, info.type)
        for each in mistakes:
            hint = self.problems.did_you_mean(each.found, each.allowed) if each.found else None
            inside = "" if isinstance(value, str) else pointer(*each.at)
            self.problems.error("bad_config", self.node.id, at + inside, each.message(info.name), hint)
        return options


def _texts(secret: Any) -> Iterator[str]:
    """The texts that a secret holds: of an object only long ones, as its short ones are common words."""
    if isinstance(secret, str):
        # It is sent without the line break that was copied along, and an error may repeat it so.
        yield from {secret, trimmed(secret)} - {""}
        return
    items = secret.values() if isinstance(secret, dict) else secret if isinstance(secret, list) else ()
    for item in items:
        yield from (text for text in _texts(item) if len(text) >= 20)


def spellings(node_type: NodeType, *, secret: bool = False) -> set[str]:
    """Every key that gives a setting of `node_type`; or only one that holds a secret."""
    chosen = [info for info in fields(node_type.config) if not secret or extra(info.type, "secret", False)]
    return {key for info in chosen for key in (info.name, *extra(info.type, "also", ()))}


def _absent(value: Any, info: FieldInfo) -> bool:
    """Whether a value of the drawing means none: editors save an empty text for what was never filled in."""
    if extra(info.type, "left_empty", False):
        is_empty = value is None or (isinstance(value, str) and not value.strip())
        return is_empty or (value == [] and not takes_anything(info.type))
    if value is None:
        return info.default is not msgspec.UNSET or not takes_anything(info.type)
    return value == "" and not takes_texts(info.type)


def _filled(value: Any, lookup: Lookup, *, texts: bool) -> Any:
    if isinstance(value, Template):
        filled = render(value, lookup)
        return to_text(filled) if texts else filled
    if isinstance(value, list):
        return [_filled(item, lookup, texts=texts) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, lookup, texts=texts) for key, item in value.items()}
    return value
