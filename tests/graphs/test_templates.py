"""Templates are paths: they put values into texts and can do nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from graphs.templates import Missing, Path, TemplateError, follow, parse, render
from nodes.contract import NodeError

VALUES: dict[str, Any] = {
    "input": {"name": "Ada", "tags": ["a", "b"], "n": 7, "none": None, "odd key": {"x": [[1, 2], [3]]}},
    "agent": "fine",
    "any id!": {"y": 1},
}


def lookup(path: Path) -> Any:
    if path.root not in VALUES:
        raise Missing(path.root)
    return follow(VALUES[path.root], path.keys, path.text)


def fill(text: str) -> Any:
    template = parse(text)
    return text if template is None else render(template, lookup)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("Dear {{ input.name }}!", "Dear Ada!"),
        ("${{input.name}}${{ agent }}", "Adafine"),
        ("{{ input.tags[0] }}{{ input.tags[-1] }}{{ input.tags.1 }}", "abb"),
        ("{{ input.tags }}", ["a", "b"]),
        ("{{ input.n }}", 7),
        (" {{ input.n }}", " 7"),
        ("{{ input.tags }} {{ input.none }}.", '["a", "b"] .'),
        ('{{ input["odd key"].x[0][1] }}', 2),
        ("{{ [\"any id!\"]['y'] }}", 1),
        ("{{ input.name | upper }}-{{ input.name | lower | length }}", "ADA-3"),
        ("{{ input.tags | join }}|{{ input.tags | join('') }}", "a, b|ab"),
        ("{{ input.tags | first }}{{ input.tags | last }}", "ab"),
        ("{{ input.tags | json }}", '["a","b"]'),
        ("{{ input.name | tojson }}", '"Ada"'),
        ("{{ nobody | default('x') }}{{ input.none | default('y') }}{{ agent | default('z') }}", "xyfine"),
        ("{{ input.missing | default }}", ""),
        ("{{ '}}' }}", None),
        ("q={{ input['odd key'].x | json | urlencode }}", "q=%5B%5B1%2C2%5D%2C%5B3%5D%5D"),
        ('a } b }} c { d {x} {%% if %%} {# no #} $HOME ${HOME} {"a": {}}', None),
    ],
)
def test_filling(text: str, filled: Any) -> None:
    if text == "{{ '}}' }}":  # a literal is not a path
        with pytest.raises(TemplateError):
            parse(text)
        return
    assert fill(text) == (text if filled is None else filled)


@pytest.mark.parametrize(
    "payload",
    [
        "{{ 7*7 }}",
        "{{ agent }}",
        "${{ input.name }}",
        "{% for x in y %}",
        "{x.__class__}",
        "{{#with}}",
        "}}{{",
    ],
)
def test_sec_04_what_is_put_in_is_never_read_again(payload: str) -> None:
    template = parse("<{{ given }}>")
    assert template is not None

    assert render(template, lambda path: payload) == f"<{payload}>"


@pytest.mark.parametrize(
    "text",
    [
        "{{ 7*7 }}",
        "{{ ''.__class__ }}",
        "{{ input.name() }}",
        "{{ input.name.upper() }}",
        "{{ input[name] }}",
        "{{ input + 1 }}",
        "{{ input.name | nonsense }}",
        "{{ input | join(1, 2) }}",
        "{{ input | attr('__class__') }}",
        "{{ }}",
        "{{ input. }}",
        "{{ input..name }}",
        "{{ input",
        "{{ {{ input }} }}",
        "{{ input | }}",
        "{{#with input}}",
        "{{ range(10) }}",
    ],
)
def test_sec_05_anything_but_a_path_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(TemplateError) as refused:
        parse(text)

    assert "allowed" in str(refused.value) or "takes" in str(refused.value)
    assert 0 <= refused.value.at <= len(text)


@pytest.mark.parametrize("key", ["__class__", "__len__", "upper", "keys"])
def test_no_attribute_of_a_value_can_be_reached(key: str) -> None:
    for root in ("input", "agent"):
        with pytest.raises(Missing):
            fill(f"{{{{ {root}.{key} }}}}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ input.nam }}", "finds nothing at 'nam': there is an object with name, tags"),
        ("{{ input.tags[5] }}", "finds nothing at 5: there is a list of 2"),
        ("{{ input.none.x }}", "finds nothing at 'x': there is nothing"),
        ("{{ agent.x }}", "finds nothing at 'x'"),
    ],
)
def test_a_path_that_leads_nowhere_says_what_is_there(text: str, says: str) -> None:
    with pytest.raises(Missing) as missing:
        fill(text)

    assert says in str(missing.value)


def test_a_text_cannot_grow_without_bound() -> None:
    template = parse("{{ a }}" * 20)
    assert template is not None

    with pytest.raises(NodeError, match="characters"):
        render(template, lambda path: "x" * 1_000_000)
