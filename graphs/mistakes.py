"""Every mistake in a setting that is made of structs and lists, where msgspec stops at the first.

What is wrong is replaced by what could be right, so that the rules that a struct has for its fields together
can still be tried: what they say whatever stands there is a mistake of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import msgspec

from graphs.kinds import (
    choices,
    convert,
    extra,
    fields,
    from_json,
    item_in,
    shown,
    struct_in,
    takes_texts,
    wanted,
)
from graphs.problems import listed, nearest
from graphs.templates import Template
from nodes.contract import NodeError
from nodes.mistakes import Keys, Mistakes

_MOST_TRIES = 50
"""How many choices of what could be right are tried: there may be thousands of them."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a setting, and the keys that lead to what it is said of."""

    keys: Keys
    words: str
    """What comes behind the place: ` is 5; allowed is a text`, or `: ` and a sentence."""
    inner: Keys = ()
    """What leads from there to the value that the sentence is about."""
    found: str = ""
    """A text that is not one of `allowed`."""
    allowed: Sequence[str] = ()

    @property
    def at(self) -> Keys:
        """What leads to it from the setting."""
        return (*self.keys, *self.inner)

    def message(self, name: str) -> str:
        inner = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys)
        return f"{name!r} at {inner.lstrip('.')}{self.words}" if inner else f"{name!r}{self.words}"


def examine(value: Any, kind: Any) -> tuple[Sequence[Any], list[Mistake]]:
    """What `value` may be as one of `kind`, best first, and what is wrong with it.

    Several where a template or something wrong stands in it; none where nothing is known of it.
    """
    found: list[Mistake] = []
    try:
        read = from_json(value)
    except ValueError:
        read = None
    return _value(value if read is None or takes_texts(kind) else read, kind, (), found), found


def together(
    struct: type[msgspec.Struct],
    fields: Mapping[str, Sequence[Any]],
    keys: Keys,
    found: list[Mistake],
    rules: Callable[[Any], Iterable[tuple[str, Keys]]] | None = None,
) -> Sequence[Any]:
    """A struct of one value of each of `fields`.

    If there is none that it and its `rules` allow, what they say to all of them is `found`.
    """
    said: list[tuple[str, Keys]] | None = None
    for chosen in islice(product(*fields.values()), _MOST_TRIES):
        try:
            made = struct(**dict(zip(fields, chosen, strict=True)))
            if not (new := list(rules(made)) if rules else []):
                return (made,)
        except Mistakes as exc:
            new = list(exc.found)
        except (ValueError, NodeError) as exc:
            new = [(str(exc), ())]
        said = new if said is None else [each for each in said if each in new]
    found += [Mistake(keys, f": {message}", inner) for message, inner in said or ()]
    return ()


def stand_ins(kind: Any, first: Any) -> list[Any]:
    """Values that something of `kind` could have: `first`, or if that is none, several others."""
    values: list[Any] = []
    each: Any
    for each in (first, *choices(kind), 1, True, [first], [], {}, None):
        try:
            values.append(msgspec.convert(each, kind))
        except msgspec.ValidationError:
            continue
        if each is first:
            break
    return values


def with_texts(raw: Any) -> Any:
    """A copy of `raw` with texts in place of its templates."""
    match raw:
        case Template():
            texts = (part if isinstance(part, str) else f"{{{{ {part.text} }}}}" for part in raw.parts)
            return "".join(texts)
        case list():
            return [with_texts(item) for item in raw]
        case dict():
            return {key: with_texts(item) for key, item in raw.items()}
        case _:
            return raw


def _value(value: Any, kind: Any, keys: Keys, found: list[Mistake]) -> Sequence[Any]:
    if isinstance(value, Template):
        return stand_ins(kind, with_texts(value))
    if isinstance(value, dict) and (struct := struct_in(kind)) is not None:
        return _struct(value, struct, keys, found)
    if isinstance(value, list) and (item := item_in(kind)) is not None:
        return _list(value, kind, item, keys, found)
    value = with_texts(value)
    try:
        return (convert(value, kind),)
    except msgspec.ValidationError:
        words = f" is {_shown(value, kind)}; allowed is {wanted(kind)}"
        text = value if isinstance(value, str) else ""
        found.append(Mistake(keys, words, found=text, allowed=choices(kind) if text else ()))
        return stand_ins(kind, "/".join(map(str, keys)) or "text")


def _shown(value: Any, kind: Any) -> str:
    if extra(kind, "secret", False):
        return "a secret"
    try:
        from_json(value)
    except ValueError as exc:
        return f"{shown(value)} ({exc})"
    return shown(value)


def _list(value: list[Any], kind: Any, item: Any, keys: Keys, found: list[Mistake]) -> Sequence[Any]:
    items = [_value(each, item, (*keys, at), found) for at, each in enumerate(value)]
    known = [each[0] for each in items if each]
    if value and not known:
        return ()
    try:
        return (msgspec.convert(known, kind),)
    except msgspec.ValidationError:  # its length, as each item fits
        if len(known) == len(value):
            found.append(Mistake(keys, f" is a list of {len(value)}; allowed is {wanted(kind)}"))
        return ()


def _struct(
    value: dict[str, Any], struct: type[msgspec.Struct], keys: Keys, found: list[Mistake]
) -> Sequence[Any]:
    known = {info.encode_name: info for info in fields(struct)}
    meant: set[str] = set()
    for key in value:
        if key not in known and struct.__struct_config__.forbid_unknown_fields:
            words = f" means nothing; there can be: {listed(known)}"
            found.append(Mistake((*keys, key), words, found=key, allowed=[*known]))
            meant |= {near} if (near := nearest(key, known)) else set()
    options: dict[str, Sequence[Any]] = {}
    for key, info in known.items():
        if key in value:
            options[info.name] = _value(value[key], info.type, (*keys, key), found)
        elif info.required or key in meant:
            options[info.name] = stand_ins(info.type, "/".join(map(str, (*keys, key))))
            if key not in meant:
                found.append(Mistake(keys, f" needs {key!r}: {wanted(info.type)}"))
    return together(struct, options, keys, found) if all(options.values()) else ()
