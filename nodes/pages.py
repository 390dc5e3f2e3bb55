"""The pages of the documentation on node types, written from the catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nodes.catalogue import Catalogue, Entry, PortEntry

WRITTEN = "<!-- Written by `make docs-nodes` from the node types themselves: change those. -->"
INDEX = "README.md"


def pages(catalogue: Catalogue) -> dict[str, str]:
    """File name -> what stands in it: a page for each type, and the index."""
    return {INDEX: index(catalogue), **{f"{each.name}.md": page(each) for each in catalogue.entries}}


def index(catalogue: Catalogue) -> str:
    """The page that names all others."""
    lines = [WRITTEN, "", "# Node types", ""]
    lines += [
        "What workflows can be drawn of. See [workflows.md](../workflows.md) for how they work together."
    ]
    known = {each.name: each for each in catalogue.entries}
    for category in catalogue.categories:
        lines += ["", f"## {category.title}", "", "| type | what it does |", "| --- | --- |"]
        lines += [f"| [{name}]({name}.md) | {_cell(known[name].description)} |" for name in category.types]
    return "\n".join(lines) + "\n"


def page(entry: Entry) -> str:
    """The page of one type."""
    lines = [WRITTEN, "", f"# {entry.title}", "", entry.description, "", _facts(entry)]
    lines += _settings(entry)
    lines += _ports("Inputs", entry.inputs)
    lines += _ports("Takes from providers", entry.bindings)
    lines += _ports("Outputs", entry.outputs)
    lines += _routes(entry)
    lines += _examples(entry)
    return "\n".join(lines) + "\n"


def _facts(entry: Entry) -> str:
    kinds = {
        "step": "It is a step.",
        "trigger": "It begins a run.",
        "provider": "It makes something for other nodes, and never runs as a step.",
    }
    facts = [f"Type `{entry.name}`, version {entry.version}.", kinds[entry.kind]]
    if entry.aliases:
        facts.append(f"Drawings may also call it {_named(entry.aliases)}.")
    if entry.is_tool:
        facts.append("Bound to an agent's `tools` it is a tool that the model may call.")
    if entry.effect:
        facts.append(
            "It acts outside the run, costs money or waits, so its result is saved before others go on."
        )
    return " ".join(facts)


def _settings(entry: Entry) -> Iterator[str]:
    yield from ("", "## Settings", "")
    if not entry.config["properties"]:
        yield "It has none."
        return
    yield from _table(entry.config)
    for name, schema in entry.config.get("$defs", {}).items():
        yield from ("", f"### {name}", "", _cell(schema.get("description", "")), "")
        yield from _table(schema)


def _table(schema: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| setting | takes | default | |", "| --- | --- | --- | --- |")
    for name, each in schema["properties"].items():
        default = (
            "required" if name in schema["required"] else _value(each["default"]) if "default" in each else ""
        )
        cells = [f"`{name}`", kind(each), default, " ".join(_said(each))]
        yield f"| {' | '.join(map(_cell, cells))} |"


def _said(schema: Mapping[str, Any]) -> Iterator[str]:
    if text := schema.get("description"):
        yield text
    if schema.get("writeOnly"):
        yield "A secret."
    if when := schema.get("x-when"):
        words = (f"`{name}` is {_or([_value(each) for each in values])}" for name, values in when.items())
        yield f"Only when {' and '.join(words)}."
    if schema.get("x-template") is False:
        yield "Takes no `{{ paths }}`."
    if also := schema.get("x-also"):
        yield f"Also written {_named(also)}."


def kind(schema: Mapping[str, Any]) -> str:
    """What a JSON Schema allows, in words."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "enum" in schema:
        return _or([_value(each) for each in schema["enum"]])
    if "anyOf" in schema:
        return _or([kind(each) for each in schema["anyOf"] if each.get("type") != "null"])
    if schema.get("type") == "array" and (items := schema.get("items")):
        return f"a list of {_PLURALS.get(kind(items), kind(items))}"
    return _KINDS.get(schema.get("type", ""), "any value") + _range(schema)


_KINDS = {
    "array": "a list",
    "integer": "a whole number",
    "number": "a number",
    "object": "an object",
    "string": "a text",
    "boolean": "true or false",
}
_PLURALS = {"a text": "texts", "an object": "objects", "a number": "numbers", "a list": "lists"}


def _range(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f" from {least:,.10g} to {most:,.10g}"
    if least is not None:
        return f" of at least {least:,.10g}"
    return f" of at most {most:,.10g}" if most is not None else ""


def _ports(title: str, ports: Sequence[PortEntry]) -> Iterator[str]:
    if not ports:
        return
    yield from ("", f"## {title}", "", "| port | type | |", "| --- | --- | --- |")
    for port in ports:
        said = [port.description, "Required." if port.required and title != "Outputs" else ""]
        said += ["Takes every value that arrives." if port.many else ""]
        said += [f"Also called {_named(port.aliases)}." if port.aliases else ""]
        type = f"{port.type}, several" if port.many else port.type
        yield f"| `{port.name}` | {type} | {_cell(' '.join(filter(None, said)))} |"


def _routes(entry: Entry) -> Iterator[str]:
    if entry.routes is None:
        return
    yield from ("", "## Ways on", "")
    named = [f"`{each}`" for each in entry.routes.fixed]
    named += ["one that its settings name"] if entry.routes.by_settings else []
    yield f"It goes on by one of its ports: {_or(named)}."
    if entry.routes.aliases:
        words = ", ".join(f"`{also}` for `{port}`" for also, port in entry.routes.aliases.items())
        yield f"Older drawings write {words}."


def _examples(entry: Entry) -> Iterator[str]:
    if not any(entry.examples):
        return
    yield from ("", "## Examples")
    for example in entry.examples:
        text = json.dumps({"type": entry.name, "data": example}, ensure_ascii=False, indent=2)
        yield from ("", "```json", text, "```")


def _or(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _named(names: Sequence[str]) -> str:
    return ", ".join(f"`{each}`" for each in names)


def _value(value: Any) -> str:
    if value in (None, "", [], {}):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
