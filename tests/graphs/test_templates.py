"""Templates are paths with filters: what they read, what they refuse, and that data stays data."""

from __future__ import annotations

from typing import Any

import pytest

from graphs.compile import Compiler
from graphs.runtime import StepFailed
from graphs.templates import (
    FILTERS,
    Filter,
    Missing,
    Path,
    Template,
    TemplateError,
    follow,
    parse,
    render,
)
from graphs.values import MAX_BYTES
from nodes import registry
from nodes.contract import NodeError
from tests.graphs.runs import Recording, run
from tests.server import drawing, edge, node

VALUES = {
    "input": {"name": "Ada", "items": [{"title": "one"}, {"title": "two"}], "0": "zero", "none": None},
    "text": "  Grüße & <b>  ",
    "my-step": 1.5,
    "b.c/d": "odd id",
    "yes": True,
    "empty": "",
    "nothing": None,
    "words": ["a", "b", 3],
}


def fill(text: str, values: dict[str, Any] = VALUES) -> Any:
    """`text` filled from `values`; a text without paths stays as it is."""

    def lookup(path: Path) -> Any:
        if path.root not in values:
            raise Missing(path.root)
        return follow(values[path.root], path.keys, path.text)

    template = parse(text)
    return text if template is None else render(template, lookup)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dear {{ input.name }}!", "Dear Ada!"),
        ("Dear ${{ input.name }}!", "Dear Ada!"),
        ("{{input.name}}{{input.name}}", "AdaAda"),
        ("{{\n input . name \n}}", "Ada"),
        ("{{ input.items[1].title }}", "two"),
        ("{{ input.items[-1]['title'] }}", "two"),
        ("{{ input.items.0.title }}", "one"),
        ('{{ input["items"][0]["title"] }}', "one"),
        ("{{ input[0] }}", "zero"),
        ("{{ my-step }}", 1.5),
        ('{{ ["b.c/d"] }}', "odd id"),
        ("{{ ['b.c/d'] | upper }}", "ODD ID"),
        ("{{ yes }}", True),
        ("is {{ yes }}", "is true"),
        ("[{{ nothing }}]", "[]"),
        ("{{ nothing }}", None),
        ("{{ input.items }}", [{"title": "one"}, {"title": "two"}]),
        ("got {{ input.items }}", 'got [{"title": "one"}, {"title": "two"}]'),
        (" {{ my-step }}", " 1.5"),
        ("{{ input.name | default('}}') }}", "Ada"),
        ("{{ input.nope | default('}}') }}", "}}"),
        ("{{ nobody.at.all | default }}", ""),
        ("{{ input.name | lower | upper | length }}", 3),
    ],
)
def test_a_path_is_filled(text: str, expected: Any) -> None:
    assert fill(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        '{"a": {"b": [1, {"c": {}}]}}',
        "You are helpful. Use tools to answer: {input}",
        "{% raw %}{% for x in y %}{# comment #}",
        "${x} $x $(x) %(x)s %{x}",
        "}} a }} }}}",
        "{ { input } }",
        "{x.__class__}",
        "f'{1+1}' <%= 7*7 %> #{7*7} [[7*7]] @(7*7)",
        "C:\\{dir}\\n",
    ],
)
def test_other_braces_are_ordinary_text(text: str) -> None:
    assert parse(text) is None
    assert fill(text) == text


def test_paths_stand_inside_json_and_other_braces() -> None:
    text = '{"a": {"b": {{ input.items | json }}}, "c": "{input} {{ input.name }}"} {% x %} ${y}'

    assert fill(text) == '{"a": {"b": [{"title":"one"},{"title":"two"}]}, "c": "{input} Ada"} {% x %} ${y}'


def test_the_first_double_brace_outside_quotes_closes() -> None:
    assert fill('{"a":{"b":{{ my-step }}}}') == '{"a":{"b":1.5}}'


def test_parse_keeps_texts_paths_and_filters() -> None:
    assert parse("a ${{ b.c[-1]['d'] | join(' ') | default(0) }} e") == Template(
        (
            "a ",
            Path(
                "b.c[-1]['d'] | join(' ') | default(0)",
                "b",
                ("c", -1, "d"),
                (Filter("join", (" ",)), Filter("default", (0,))),
            ),
            " e",
        )
    )


@pytest.mark.parametrize(
    "text",
    [
        "{{ 7*7 }}",
        "{{ 1 }}",
        "{{ }}",
        "{{",
        "{{ input",
        "{{ input }",
        "{{ input. }}",
        "{{ input..name }}",
        "{{ input[ }}",
        "{{ input[] }}",
        "{{ input[name] }}",
        "{{ input[1:2] }}",
        "{{ input[1.5] }}",
        "{{ input.name() }}",
        "{{ input + 1 }}",
        "{{ input name }}",
        "{{ input, name }}",
        "{{ 'text' }}",
        "{{ ''.__class__ }}",
        "{{ [input] }}",
        "{{ (input) }}",
        "{{ -input }}",
        "{{ not input }}",
        "{{ input if input else 1 }}",
        "{{ input | }}",
        "{{ input || json }}",
        "{{ input | nope }}",
        "{{ input | __class__ }}",
        "{{ input | join( }}",
        "{{ input | join('a' 'b') }}",
        "{{ input | join('a', 'b') }}",
        "{{ input | default(input) }}",
        "{{ input | upper('x') }}",
        "{{ input[" + "9" * 5000 + "] }}",
        "{{{ input }}}",
        "{{{{ input }}}}",
        "{{#with input}}",
        "{{/with}}",
        "{{> partial }}",
        "{{& input }}",
        "{{! comment }}",
        "{{= <% %> =}}",
        "{{- input -}}",
        "{{ lambda: 1 }}",
        "{{ input\x00 }}",
    ],
)
def test_whatever_is_not_a_path_is_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        parse(text)


def test_a_template_error_says_what_where_and_what_is_allowed() -> None:
    with pytest.raises(TemplateError) as refused:
        parse("Dear {{ input.upper() }}")

    assert str(refused.value) == (
        "'{{ input.upper() }}' is not a path: '(' is not understood; allowed is a path such as "
        "{{ step.output }}, {{ step.items[0].title }} or {{ input | json }}"
    )
    assert refused.value.at == len("Dear {{ input.upper")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "{{ input.nam }}",
            "'{{ input.nam }}' finds nothing at 'nam': there is an object with name, items, 0, none",
        ),
        ("{{ input.items[2] }}", "'{{ input.items[2] }}' finds nothing at 2: there is a list of 2"),
        (
            "{{ input.items.title }}",
            "'{{ input.items.title }}' finds nothing at 'title': there is a list of 2",
        ),
        ("{{ input.none.x }}", "'{{ input.none.x }}' finds nothing at 'x': there is nothing"),
        ("{{ text.upper }}", "'{{ text.upper }}' finds nothing at 'upper': there is a text"),
        ("{{ text[0] }}", "'{{ text[0] }}' finds nothing at 0: there is a text"),
        ("{{ my-step.real }}", "'{{ my-step.real }}' finds nothing at 'real': there is a number"),
        ("{{ yes.real }}", "'{{ yes.real }}' finds nothing at 'real': there is true or false"),
    ],
)
def test_a_path_to_nothing_says_what_is_there(text: str, words: str) -> None:
    with pytest.raises(Missing) as missing:
        fill(text)

    assert str(missing.value) == words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ input.items | json }}", '[{"title":"one"},{"title":"two"}]'),
        ("{{ text | tojson }}", '"  Grüße & <b>  "'),
        ("{{ nothing | json }}", "null"),
        ("{{ words | text }}", '["a", "b", 3]'),
        ("{{ text | trim }}", "Grüße & <b>"),
        ("{{ text | upper | trim }}", "GRÜSSE & <B>"),
        ("{{ yes | upper }}", "TRUE"),
        ("{{ text | lower | trim }}", "grüße & <b>"),
        ("{{ text | length }}", 15),
        ("{{ words | length }}", 3),
        ("{{ input | length }}", 4),
        ("{{ my-step | length }}", 0),
        ("{{ words | first }}", "a"),
        ("{{ words | last }}", 3),
        ("{{ empty | first }}", None),
        ("{{ input | first }}", None),
        ("{{ words | join }}", "a, b, 3"),
        ("{{ words | join('') }}", "ab3"),
        ("{{ words | join(0) }}", "a0b03"),
        ("{{ my-step | join('-') }}", "1.5"),
        ("{{ empty | default('x') }}", "x"),
        ("{{ nothing | default('x') }}", "x"),
        ("{{ nothing | default(7) }}", 7),
        ("{{ words | length | default('x') }}", 3),
        ("{{ input.a.b.c | upper | default('x') }}", "x"),
        ("{{ text | trim | urlencode }}", "Gr%C3%BC%C3%9Fe%20%26%20%3Cb%3E"),
        ("{{ input.name | urlencode }}/", "Ada/"),
    ],
)
def test_a_filter(text: str, expected: Any) -> None:
    assert fill(text) == expected


def test_every_filter_takes_every_value() -> None:
    values: list[Any] = [None, True, 0, -1.5, "", "text", [], [None, {"a": []}], {}, {"a": 1}]

    filled = [fill(f"{{{{ x | {name} }}}}", {"x": value}) for name in FILTERS for value in values]

    assert len(filled) == len(FILTERS) * len(values)


@pytest.mark.parametrize(
    "text",
    [
        "{{ big }}" * 9,
        "{{ big | upper }}{{ big }} and so on" * 5,
        "{{ list | join('" + "x" * 100 + "') }}",
        "{{ quotes" + " | json" * 60 + " }}",
    ],
)
def test_a_text_that_would_grow_without_end_is_refused_before_it_does(text: str) -> None:
    values: dict[str, Any] = {"big": "x" * 1_000_000, "list": [0] * 200_000, "quotes": '"'}

    with pytest.raises(NodeError) as refused:
        fill(text, values)

    assert refused.value.code == "limit_exceeded"
    assert str(refused.value).endswith(f"at most {MAX_BYTES} are allowed")


def test_a_long_path_is_read_in_one_pass() -> None:
    template = parse("{{ a" + ".b" * 100_000 + " }}")

    assert template is not None
    assert len(template.paths[0].keys) == 100_000


PAYLOADS = [
    "{{ 7*7 }}",
    "{{ input }}",
    "{{ ''.__class__ }}",
    "{x.__class__}",
    "${7*7}",
    "${{ run.id }}",
    "{{#with this}}{{lookup . 'constructor'}}{{/with}}",
    "{% for c in ().__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    "#{7*7} <%= 7*7 %> {{{{7*7}}}} {{7*'7'}}",
    "{{ first | json }}",
    "__import__('os').system('id')",
    "%s %(x)s {0} {0.__class__}",
    '"}} {{ input }} {{"',
]


async def ran(*parts: dict[str, Any], given: Any = None) -> Recording:
    return await run(Compiler(registry.discover()).compile(drawing(*parts)), given)


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_data_is_put_in_once_and_never_read_again(payload: str) -> None:
    """SEC-04: input, and what steps make of it, may look like a template; it stays what it is."""
    made = await ran(
        node("start", "StartNode"),
        node("first", "Template", template="1 {{ input.text }}"),
        node("second", "Template", template="2 {{ first }} {{ start.text }}"),
        node("if", "ConditionNode", value1="{{ second }}", value2="2 1 {{ input.text }} {{ start.text }}"),
        node("end", "EndNode"),
        edge("start", "first"),
        edge("first", "second"),
        edge("second", "if"),
        edge("if", "end", "true_output"),
        given={"text": payload},
    )

    assert made.output == f"2 1 {payload} {payload}"
    assert "49" not in str(made.outputs)


@pytest.mark.parametrize(
    "template",
    [
        "{{ input.__class__ }}",
        "{{ input['__class__']['__mro__'] }}",
        "{{ input.text.__class__.__init__.__globals__ }}",
        "{{ input.text.upper }}",
        "{{ input.keys }}",
        "{{ run.__dict__ }}",
        "{{ trigger.__class__.__base__ }}",
        "{{ start.__init__ }}",
        "{{ input.list.__len__ }}",
        "{{ input.list.append }}",
    ],
)
async def test_a_path_reaches_no_attributes(template: str) -> None:
    """SEC-05: only keys and indexes of JSON data are followed, whatever they are called."""
    with pytest.raises(StepFailed) as failed:
        await ran(
            node("start", "StartNode"),
            node("t", "Template", template=template),
            edge("start", "t"),
            given={"text": "x", "list": [1]},
        )

    assert failed.value.error["code"] == "missing_value"
    assert "finds nothing at" in failed.value.error["message"]


async def test_a_key_that_looks_like_an_attribute_is_a_key() -> None:
    made = await ran(node("t", "Template", template="{{ input.__class__ }}"), given={"__class__": "data"})

    assert made.output == "data"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_in_the_settings_is_refused_or_literal(payload: str) -> None:
    """SEC-05: what an editor writes is a path of ours, or a problem, or plain text."""
    checked = Compiler(registry.discover()).check(drawing(node("t", "Template", template=payload)))

    if parse_fails(payload):
        assert {each.code for each in checked.problems} == {"bad_template"}
    elif "{{" in payload:
        assert [each.code for each in checked.problems] in ([], ["unknown_reference"])
    else:
        assert checked.plan is not None
        assert checked.plan.steps["t"].settings.fixed == {"template": payload}


def parse_fails(text: str) -> bool:
    try:
        parse(text)
    except TemplateError:
        return True
    return False
