"""Everything that an editor shows is said, in JSON Schema: descriptions, icons, examples that fit."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest
from msgspec.structs import fields

from graphs.alone import check_alone
from nodes import registry
from nodes.catalogue import Catalogue, Entry
from nodes.contract import NodeType
from nodes.elsewhere import INSTEAD
from nodes.notes import described
from nodes.schemas import form_schema, structs
from tests.graphs.node_types import CHOOSER, GIVER, USER
from tests.nodes.old_types import CLOCK

REGISTRY = registry.discover()
CATALOGUE = Catalogue(REGISTRY)
TYPES = sorted(REGISTRY.types)


def undescribed(node_type: NodeType) -> list[str]:
    """Every field of settings and ports, and of what lies in them, that does not say what it is."""
    roots = (node_type.config, node_type.inputs, node_type.bindings, node_type.outputs)
    return [
        f"{struct.__qualname__}.{info.name}"
        for root in roots
        for struct in _inside(root)
        for info in fields(struct)
        if not described(info.type)
    ]


def _inside(root: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    return [root, *(each for each in structs(root) if each is not root)]


@pytest.mark.parametrize("name", TYPES)
def test_every_setting_and_port_says_what_it_is(name: str) -> None:
    assert undescribed(REGISTRY.types[name]) == []


@pytest.mark.parametrize("name", TYPES)
def test_every_type_has_an_icon_and_an_example(name: str) -> None:
    entry = CATALOGUE.get(name)

    assert entry is not None
    assert entry.icon and entry.examples
    assert entry.description.endswith((".", "`"))


@pytest.mark.parametrize("name", TYPES)
def test_every_example_fits_and_checks_without_a_problem(name: str) -> None:
    node_type = REGISTRY.types[name]

    for example in node_type.examples:
        assert check_alone(node_type, example) == ()
        msgspec.convert(example, node_type.config)
        assert example.keys() <= {info.encode_name for info in fields(node_type.config)}


@pytest.mark.parametrize("name", TYPES)
def test_names_can_stand_in_an_address(name: str) -> None:
    assert msgspec.json.decode(msgspec.json.encode(name)) == name
    assert "/" not in name and name.isascii() and name == name.strip()


@pytest.mark.parametrize("name", TYPES)
def test_conditional_settings_name_settings_and_values_that_there_are(name: str) -> None:
    entry = CATALOGUE.get(name)
    assert entry is not None
    for schema in [entry.config, *entry.config.get("$defs", {}).values()]:
        for each in schema["properties"].values():
            for other, values in each.get("x-when", {}).items():
                allowed = schema["properties"][other].get("enum")
                assert allowed is None or set(values) <= set(allowed), (other, values)


@pytest.mark.parametrize("name", TYPES)
def test_every_reference_in_a_schema_leads_somewhere(name: str) -> None:
    entry = CATALOGUE.get(name)
    assert entry is not None

    known = {f"#/$defs/{each}" for each in entry.config.get("$defs", {})}
    assert set(_references(entry.config)) <= known


def _references(schema: Any) -> list[str]:
    match schema:
        case dict():
            found = [schema["$ref"]] if "$ref" in schema else []
            return found + [ref for each in schema.values() for ref in _references(each)]
        case list():
            return [ref for each in schema for ref in _references(each)]
        case _:
            return []


def test_the_whole_catalogue_is_json_and_comes_back_as_it_was() -> None:
    entries = msgspec.json.decode(CATALOGUE.encoded, type=tuple[Entry, ...])

    assert msgspec.json.encode(entries) == CATALOGUE.encoded
    assert [each.name for each in entries] == list(dict.fromkeys(each.name for each in entries))


def test_a_type_without_words_is_in_the_catalogue_all_the_same() -> None:
    made = Catalogue(registry.Registry({"Chooser": CHOOSER, "Giver": GIVER, "User": USER}, {}))

    chooser, giver, user = (made.get(name) for name in ("Chooser", "Giver", "User"))

    assert chooser is not None and giver is not None and user is not None
    assert chooser.routes is not None and chooser.routes.by_settings
    assert (giver.gives, giver.outputs[0].type) == ("Text", "Text")
    assert [(each.name, each.type, each.many) for each in user.bindings] == [("texts", "Text", True)]
    assert made.get("nobody") is None


def test_a_form_says_titles_defaults_limits_and_choices_in_their_order() -> None:
    schema = form_schema(CLOCK.config, "A clock", "Tells the time.")

    assert (schema["title"], schema["description"]) == ("A clock", "Tells the time.")
    assert schema["properties"]["every_seconds"] == {
        "title": "Every seconds",
        "description": "Seconds between two strokes.",
        "type": "number",
        "minimum": 0.1,
        "default": 1.0,
        "x-also": ["interval"],
        "x-template": True,
    }
    assert schema["properties"]["sound"]["enum"] == ["tick", "silent", "bell"]


def test_types_of_other_servers_are_not_ours_and_the_way_out_is() -> None:
    names = {word.rstrip(":,") for hint in INSTEAD.values() for word in hint.split() if word[:1].isupper()}

    assert [each for each in INSTEAD if REGISTRY.find(each)] == []
    assert [each for each in names - {"HTTP"} if REGISTRY.find(each) is None] == []


PROVIDERS = (
    "langchain", "langchain_core", "langchain_openai", "langgraph", "openai", "anthropic", "pypdf", "docx",
    "trafilatura", "selectolax", "cohere", "tavily", "mcp", "tiktoken", "numpy", "psycopg", "litestar",
    "langchain_text_splitters", "cryptography", "aiosmtplib", "google", "ollama", "yaml",
)  # fmt: skip


def test_no_providers_library_is_imported_before_its_first_use() -> None:
    program = (
        "import sys; from nodes import registry; from nodes.catalogue import Catalogue; "
        "Catalogue(registry.discover()).encoded; print(*sorted({n.partition('.')[0] for n in sys.modules}))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert sorted(set(done.stdout.split()) & set(PROVIDERS)) == []
