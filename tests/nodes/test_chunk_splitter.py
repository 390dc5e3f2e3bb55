"""Chunks: every strategy, every spelling of the editors, sizes that hold, and no text lost."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.contract import NodeError, RunContext
from nodes.documents.chunk_splitter import NODE, Inputs, Outputs, run
from nodes.reading import Reader
from nodes.token_counts import count_tokens, token_ends
from tests.nodes.contexts import context
from tests.nodes.settings import assert_examples_fit, configured, told_of
from tests.workshop import reader


async def split(*documents: Any, ctx: RunContext | None = None, **drawn: Any) -> Outputs:
    return await run(configured(NODE, **drawn), Inputs(documents), ctx or context())


async def texts(*documents: Any, **drawn: Any) -> list[str]:
    return [chunk["page_content"] for chunk in (await split(*documents, **drawn)).chunks]


async def fails(*documents: Any, **drawn: Any) -> NodeError:
    with pytest.raises(NodeError) as failed:
        await split(*documents, **drawn)
    return failed.value


ONE = "Para one is here. It has two sentences."
TEXT = f"{ONE}\n\nPara two, with commas.\n\nPara three."


def test_its_examples_fit() -> None:
    assert_examples_fit(NODE)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ({"chunk_size": 40}, [ONE, "Para two, with commas.\n\nPara three."]),
        ({"chunk_size": 30, "separators": "\\,"}, None),
        (
            {"split_strategy": "character", "separator": "\\n\\n", "chunk_size": 10, "chunk_overlap": 0},
            [ONE, "Para two, with commas.", "Para three."],
        ),
        (
            {"strategy": "character", "separators": ["\n\n"], "chunk_size": 60, "keep_separator": "false"},
            [ONE, "Para two, with commas.\n\nPara three."],
        ),
        (
            {"is_separator_regex": True, "separator": "[.!?]\\s+", "split_strategy": "character",
             "chunk_size": 20, "chunk_overlap": 0, "keep_separator": False},
            ["Para one is here", "It has two sentences", "Para two, with commas", "Para three."],
        ),
    ],
)  # fmt: skip
async def test_a_text_is_cut_where_the_strategy_says(
    drawn: dict[str, Any], expected: list[str] | None
) -> None:
    found = await texts(TEXT, **drawn)

    if expected is not None:
        assert found == expected
    else:
        assert all(len(each) <= drawn["chunk_size"] for each in found)


async def test_defect_15_the_editors_own_names_are_heard() -> None:
    camel = await split(
        TEXT,
        chunkSize="30",
        overlap="5",
        separator="\\n\\n",
        keepSeparator="true",
        lengthFunction="len",
        isSeparatorRegex="false",
    )
    snake = await split(TEXT, chunk_size=30, chunk_overlap=5, separator="\n\n")

    assert [c["page_content"] for c in camel.chunks] == [c["page_content"] for c in snake.chunks]
    assert camel.chunks[0]["metadata"]["chunk_size_config"] == 30
    assert camel.chunks[0]["metadata"]["chunk_overlap_config"] == 5


@pytest.mark.parametrize("length", ["len", "tokens", "tokenizer", "custom"])
@pytest.mark.parametrize(
    "strategy",
    [
        "recursive_character",
        "tokens",
        "character",
        "markdown_headers",
        "html_headers",
        "python_code",
        "latex",
    ],
)
async def test_every_strategy_works_with_every_way_to_count(strategy: str, length: str) -> None:
    text = "# One\n\nSome text.\n\n## Two\n\ndef f():\n    return 1\n\n\\section{x} more"
    async with reader() as made:
        ctx = context(doors={Reader: made}) if strategy == "html_headers" else context()
        outputs = await split(text, ctx=ctx, split_strategy=strategy, length_function=length, chunk_size=200)

    assert outputs.chunks
    assert outputs.chunks[0]["metadata"]["splitter_strategy"] == strategy


MARKDOWN = """intro

# First
text
```python
# no heading
    indented = 1
```
## Inner ##
more

# Second
end"""


async def test_headings_cut_markdown_and_are_told_with_each_chunk() -> None:
    chunks = (await split(MARKDOWN, split_strategy="markdown_headers")).chunks

    assert [chunk["page_content"] for chunk in chunks] == [
        "intro",
        "# First\ntext\n```python\n# no heading\n    indented = 1\n```",
        "## Inner ##\nmore",
        "# Second\nend",
    ]
    assert [{k: v for k, v in chunk["metadata"].items() if k in ("h1", "h2")} for chunk in chunks] == [
        {},
        {"h1": "First"},
        {"h1": "First", "h2": "Inner"},
        {"h1": "Second"},
    ]
    only_first = await texts(MARKDOWN, split_strategy="markdown_headers", header_levels="h1")
    assert len(only_first) == 3


async def test_headings_cut_a_page_too() -> None:
    page = "<body><h1>One</h1><p>a <b>bold</b> word</p><h2>Two</h2><ul><li>x</ul></body>"
    async with reader() as made:
        chunks = (
            await split(
                page, split_strategy="html_headers", headerLevels="h1,h2", ctx=context(doors={Reader: made})
            )
        ).chunks

    assert [chunk["page_content"] for chunk in chunks] == ["# One\n\na bold word", "## Two\n\n- x"]
    assert chunks[1]["metadata"]["h2"] == "Two"


@pytest.mark.parametrize(
    ("written", "text", "expected"),
    [
        ("\\,", "a,b,c", ["a", ",b", ",c"]),
        (" ", "a b c", ["a", "b", "c"]),
        ("\\s", "a b c", ["a", "b", "c"]),
        ("\\n\\n,\\n", "a\nb\n\nc", ["a", "b", "c"]),
        ("\\n, |", "a|b|c", ["a", "|b", "|c"]),
        ('["|"]', "a|b", ["a", "|b"]),
        (["|"], "a|b", ["a", "|b"]),
        ("\\t", "a\tb", ["a", "b"]),
        ("\\\\", "a\\b", ["a", "\\b"]),
    ],
)
async def test_separators_can_say_a_comma_a_space_and_a_line_break(
    written: Any, text: str, expected: list[str]
) -> None:
    assert await texts(text, separators=written, chunk_size=2, chunk_overlap=0) == expected


async def test_chunks_say_where_they_come_from() -> None:
    outputs = await split(
        [{"page_content": "one " * 100, "metadata": {"source": "a.txt", "page": 3}}],
        {"documents": [{"text": "two", "metadata": {"source": "b.txt"}}]},
        chunk_size=100,
    )
    again = await split(
        [{"page_content": "one " * 100, "metadata": {"source": "a.txt", "page": 3}}],
        {"documents": [{"text": "two", "metadata": {"source": "b.txt"}}]},
        chunk_size=100,
    )

    first, last = outputs.chunks[0]["metadata"], outputs.chunks[-1]["metadata"]
    assert (first["source"], first["page"], last["source"]) == ("a.txt", 3, "b.txt")
    assert [chunk["metadata"]["chunk_id"] for chunk in outputs.chunks] == list(
        range(1, len(outputs.chunks) + 1)
    )
    assert first["total_chunks"] == len(outputs.chunks) == outputs.stats["total_chunks"]
    assert first["actual_length"] == len(outputs.chunks[0]["page_content"])
    assert first["word_count"] == len(outputs.chunks[0]["page_content"].split())
    ids = [chunk["metadata"]["chunk_uuid"] for chunk in outputs.chunks]
    assert len(set(ids)) == len(ids)
    assert ids == [chunk["metadata"]["chunk_uuid"] for chunk in again.chunks]


async def test_it_tells_how_the_chunks_turned_out() -> None:
    outputs = await split({"page_content": TEXT, "metadata": {"source": "s"}}, chunk_size=40, overlap=0)

    assert outputs.stats["total_documents"] == 1
    assert sum(outputs.stats["length_distribution"].values()) == outputs.stats["total_chunks"]
    assert outputs.stats["max_length"] <= 40
    assert outputs.preview[0]["micro"] == "Para one is here. It has two sentences."
    assert outputs.preview[0]["content_type"] == "text"
    assert outputs.metadata_report["source_analysis"]["chunks_per_source"] == {
        "s": outputs.stats["total_chunks"]
    }
    assert outputs.metadata_report["coverage"]["source"] == 1
    assert outputs.metadata_report["quality_score"]["grade"] in "ABCDF"


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        ({"chunk_size": 100, "chunk_overlap": 100}, "the overlap, 100, must be less than the size"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"split_strategy": "markdown_headers", "header_levels": "h9"}, "allowed are h1 to h6"),
        ({"split_strategy": "markdown_headers", "header_levels": ","}, "allowed are h1 to h6"),
        ({"is_separator_regex": True, "separators": "("}, "RE2"),
        ({"split_strategy": "semantic"}, "split_strategy"),
    ],
)
def test_settings_that_no_text_fits_are_told_before_a_run(drawn: dict[str, Any], words: str) -> None:
    found = told_of(NODE, **drawn)

    assert [severity for severity, _, _ in found] == ["error"]
    assert words in found[0][2]


@pytest.mark.parametrize(
    "nothing", [None, "", "  \n", [], {}, {"documents": []}, 7, [None, {"x": 1}], {"text": ""}]
)
async def test_no_text_is_said_to_be_none(nothing: Any) -> None:
    assert (await fails(nothing)).code == "no_documents"


async def test_huge_texts_are_refused_and_large_ones_take_seconds() -> None:
    assert (await fails("x" * 20_000_001)).code == "too_large"
    assert (await fails("x " * 150_000, chunk_size=1, overlap=0)).code == "too_large"

    began = time.monotonic()
    found = await texts("a" * 500_000, chunk_size=1000)
    assert len(found) >= 500
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("hostile", ["(a+)+$", "(a|a)*b", "(.*)*x"])
async def test_a_regular_expression_cannot_take_for_ever(hostile: str) -> None:
    began = time.monotonic()

    assert await texts("a" * 20_000 + "!", is_separator_regex=True, separator=hostile)

    assert time.monotonic() - began < 5


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.sampled_from("ab \n.,é世👩\u200d"), min_size=1, max_size=300),
    size=st.integers(5, 60),
    overlap=st.integers(0, 4),
    strategy=st.sampled_from(["recursive_character", "tokens", "markdown_headers"]),
)
async def test_no_chunk_is_too_long_and_no_letter_is_lost(
    text: str, size: int, overlap: int, strategy: str
) -> None:
    if not text.strip():
        return
    outputs = await split(text, split_strategy=strategy, chunk_size=size, chunk_overlap=overlap)

    found = [chunk["page_content"] for chunk in outputs.chunks]
    measure = count_tokens if strategy == "tokens" else len
    assert all(measure(each) <= size for each in found)
    kept = re.sub(r"\s", "", "".join(found))
    letters = iter(kept)
    assert all(letter in letters for letter in re.sub(r"\s", "", text))  # each in its order
    assert all(each in text for each in found)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_tokens_end_where_the_text_does(text: str) -> None:
    ends = token_ends(text)

    assert len(ends) == count_tokens(text)
    assert ends == sorted(ends)
    assert (ends[-1] if ends else 0) == len(text)


def test_tokens_are_counted_as_openai_counts_them() -> None:
    assert count_tokens("hello world") == 2
    assert count_tokens("tiktoken is great!") == 6
    assert count_tokens("お誕生日おめでとう") == 9
    assert count_tokens("<|endoftext|>") == 7
    assert count_tokens("\ud800") > 0
