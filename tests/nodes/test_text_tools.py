"""JSON and YAML read from texts, and texts given as they are."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes.contract import NodeError
from nodes.text import json_parser, string_input
from tests.nodes.contexts import context
from tests.nodes.settings import assert_examples_fit, configured


async def parse(*arrived: Any, **drawn: Any) -> Any:
    outputs = await json_parser.run(
        configured(json_parser.NODE, **drawn), json_parser.Inputs(arrived), context()
    )
    return outputs.output


async def fails(*arrived: Any, **drawn: Any) -> NodeError:
    with pytest.raises(NodeError) as failed:
        await parse(*arrived, **drawn)
    return failed.value


def test_their_examples_fit() -> None:
    assert_examples_fit(json_parser.NODE)
    assert_examples_fit(string_input.NODE)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, true]}', {"a": [1, 2.5, None, True]}),
        ('  "text"\n', "text"),
        ("7", 7),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ("```\n[1]\n```\n", [1]),
        ('{"a": "```"}', {"a": "```"}),
        ('```json\r\n{"a": 1}\r\n```\r\n', {"a": 1}),
        ('```JSON\n{"a": 1}\n```', {"a": 1}),
        ('~~~\n{"a": 1}\n~~~', {"a": 1}),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('\ufeff```json\n{"a": 1}\n```', {"a": 1}),
        ('```json\n{"a": "```\\nb\\n```"}\n```', {"a": "```\nb\n```"}),
        ('Here is `it`:\r\n```json\r\n{"a": "x ``` y"}\r\n```\r\nAnything else?', {"a": "x ``` y"}),
        ({"already": "read"}, {"already": "read"}),
        ([1], [1]),
        (None, None),
    ],
)
async def test_json_is_read(text: Any, value: Any) -> None:
    assert await parse(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb:\n  - x\n  - 2.5\n", {"a": 1, "b": ["x", 2.5]}),
        ("```yaml\na: b\n```", {"a": "b"}),
        ("\ufeff```yaml\r\na: b\r\nc: d\r\n```\r\n", {"a": "b", "c": "d"}),
        ("\ufeffa: b", {"a": "b"}),
        ("[NO, no, yes, on, off, y, n]", ["NO", "no", "yes", "on", "off", "y", "n"]),
        ("[0123, 007, 00.5, -08]", ["0123", "007", "00.5", "-08"]),
        ("[12:30, 1:20:30, 2024-01-31, 1_000]", ["12:30", "1:20:30", "2024-01-31", "1_000"]),
        ("[true, True, FALSE, ~, null, '', 'true']", [True, True, False, None, None, "", "true"]),
        ("[0, -3, +4, 0x1F, 0o17, 1.5, -.5, 1e3, 2.]", [0, -3, 4, 31, 15, 1.5, -0.5, 1000.0, 2.0]),
        ("NO: 1\n12:30: 2\n1: 3", {"NO": 1, "12:30": 2, "1": 3}),
        ("base: &b {x: 1}\nmore: {<<: *b, y: 2}", {"base": {"x": 1}, "more": {"x": 1, "y": 2}}),
        ('{"a": 1}', {"a": 1}),
        ("d: 2024-05-06\nt: 2024-05-06T07:08:09Z", {"d": "2024-05-06", "t": "2024-05-06T07:08:09Z"}),
        ("1: one\n2024-05-06: day\nfalse: yes", {"1": "one", "2024-05-06": "day", "false": "yes"}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("n: .nan\nb: !!binary aGk=\ns: !!set {x}", {"n": None, "b": "hi", "s": ["x"]}),
    ],
)
async def test_yaml_is_read(text: str, value: Any) -> None:
    assert await parse(text, format="yaml") == value


async def test_a_template_is_read_in_place_of_what_arrives() -> None:
    assert await parse("ignored", template='{"a": 1}') == {"a": 1}
    assert await parse(template="a: 1", format="yaml") == {"a": 1}
    assert await parse('{"a": 1}', "2") == [{"a": 1}, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1,}', "line 1, column 9, where it says '}'"),
        ("{'a': 1}", "line 1, column 2"),
        ("", "empty"),
        ("   ", "empty"),
        ("NaN", "does not know"),
        ("[1] [2]", "Extra data"),
        ("\x00", "line 1, column 1"),
        ("[" * 100_000, "deep"),
        ('{"a": "\ud800"}', "does not know"),
        ("1" * 100_000, "does not know"),
    ],
)
async def test_what_is_not_json_is_told_with_its_place(text: str, words: str) -> None:
    failed = await fails(text)

    assert failed.code == "bad_json"
    assert words in failed.message
    assert len(failed.message) < 300


@pytest.mark.parametrize(
    "text",
    [
        "a: b: c",
        "[1, 2",
        "!!python/object/apply:os.system ['touch /tmp/never']",
        "!!python/name:os.system",
        "a: *unknown",
        "\x00",
        "--- 1\n--- 2",
        "? [1, 2]\n: x",
    ],
)
async def test_what_is_not_yaml_is_refused(text: str) -> None:
    assert (await fails(text, format="yaml")).code == "bad_yaml"


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    "text", [LAUGHS, "&a [*a]", "[" * 100_000, "- " * 100_000 + "x", "{a: " * 50_000, "x" * 1_000_001]
)
async def test_a_hostile_yaml_is_refused_in_time(text: str) -> None:
    began = time.monotonic()

    assert (await fails(text, format="yaml")).code in ("too_large", "bad_yaml")
    assert time.monotonic() - began < 10


async def test_a_text_of_many_spaces_after_a_fence_is_refused_at_once() -> None:
    began = time.monotonic()

    assert (await fails("```\n" + " " * 300_000 + "x")).code == "bad_json"
    assert (await fails("```\n" * 100_000 + "x")).code == "bad_json"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("text", ["```\n1\n```\nor\n```\n2\n```", 'Sure: {"a": 1}'])
async def test_json_that_is_not_clearly_meant_is_refused_and_not_cut(text: str) -> None:
    assert (await fails(text)).code == "bad_json"


async def test_nothing_at_all_is_said_to_be_nothing() -> None:
    assert (await fails()).code == "missing_value"


@settings(suppress_health_check=[HealthCheck.too_slow])  # as it is while others load the machine
@given(
    st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=9)
)
async def test_what_was_written_as_json_is_read_as_it_was(value: Any) -> None:
    assert await parse(json.dumps(value)) == value


async def text(*arrived: Any, **drawn: Any) -> string_input.Outputs:
    config = configured(string_input.NODE, **drawn)
    return await string_input.run(config, string_input.Inputs(arrived), context())


async def test_a_text_is_given_with_how_long_it_is() -> None:
    outputs = await text("ignored", text_input="Hello,\nworld")

    assert outputs.output == "Hello,\nworld"
    assert outputs.text_stats == {"characters": 12, "words": 2, "lines": 2}
    assert outputs.validation_status == {"is_valid": True}
    assert outputs.documents == [{"page_content": "Hello,\nworld", "metadata": {"source": "A step"}}]


@pytest.mark.parametrize(
    ("arrived", "expected"),
    [
        (("a", "b"), "a\n\nb"),
        (({"a": 1},), '{"a": 1}'),
        ((None,), ""),
        ((), ""),
        (("{{ 7*7 }}",), "{{ 7*7 }}"),
    ],
)
async def test_what_arrives_is_given_where_no_text_is_written(arrived: Any, expected: str) -> None:
    outputs = await text(*arrived)

    assert outputs.output == expected
    assert outputs.validation_status["is_valid"] == bool(expected)
    assert bool(outputs.documents) == bool(expected)
