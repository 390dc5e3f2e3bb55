"""Collections: what is kept, what is found, and that nobody else finds it."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from flowserver.chunk_table import Likeness
from flowserver.db import Pool, make_pool, migrate
from flowserver.ranking import different, fused
from flowserver.vectors import OrgVectors
from nodes.contract import NodeError
from nodes.vectors import Chunk, Distance, Embedder, Found, Query
from tests.embeddings import WordVectors, vector
from tests.flowserver.conftest import new_org

WORDS = Embedder("words", WordVectors(), 64)


def chunks(*texts: str, **metadata: Any) -> list[Chunk]:
    return [Chunk(text, metadata) for text in texts]


def near(text: str, k: int = 6, **more: Any) -> Query:
    return Query(text, vector(text), k, **more)


def contents(found: Sequence[Found]) -> list[str]:
    return [each.content for each in found]


async def refusal(what: Any) -> str:
    with pytest.raises(NodeError) as caught:
        await what
    return f"{caught.value.code}: {caught.value.message}"


async def test_what_is_near_is_found_first_with_its_similarity(vectors: OrgVectors) -> None:
    await vectors.store("docs", chunks("red apple", "red apple tart", "blue whale", source="s"), WORDS)

    found = await vectors.search("docs", near("red apple", 2))

    assert contents(found) == ["red apple", "red apple tart"]
    assert [round(each.score or 0, 2) for each in found] == [1.0, 0.82]
    assert found[0].metadata == {"source": "s"}


@pytest.mark.parametrize(
    ("distance", "scores"),
    [
        ("cosine", [1.0, 0.0, 0.0]),
        ("inner_product", [2.0, 0.0, -2.0]),
        ("l2", [1.0, 1 / (1 + math.sqrt(5)), 1 / 5]),
    ],
)
async def test_a_score_says_how_near_it_is_by_each_distance(
    vectors: OrgVectors, distance: Distance, scores: list[float]
) -> None:
    class Given:
        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            return [[float(each) for each in text.split()] for text in texts]

        async def aembed_query(self, text: str) -> list[float]:
            return [float(each) for each in text.split()]

    given = Embedder("given", Given(), 2)
    await vectors.store("d", chunks("2 0", "0 1", "-2 0"), given, distance=distance)

    found = await vectors.search("d", Query(vector=[1.0, 0.0], k=3))
    two = await vectors.search("d", Query(vector=[2.0, 0.0], k=3)) if distance == "l2" else found

    assert [each.score for each in two] == pytest.approx(scores)
    kept = await vectors.search("d", Query(vector=[1.0, 0.0], k=3, threshold=0.5))
    assert contents(kept) == ["2 0"]


async def test_the_same_content_is_kept_once_and_costs_no_second_embedding(vectors: OrgVectors) -> None:
    words = WordVectors()
    embedder = Embedder("words", words, 64)
    first = await vectors.store("docs", [Chunk("a b", {"page": 1}, "doc"), Chunk("c d", {}, "doc")], embedder)

    again = await vectors.store("docs", [Chunk("a b", {"page": 2}, "doc"), Chunk("c d", {}, "doc")], embedder)

    assert (first.added, first.changed, first.unchanged) == (2, 0, 0)
    assert (again.added, again.changed, again.unchanged) == (0, 1, 1)
    assert words.asked == ["a b", "c d"]
    assert again.ids == first.ids
    [found] = await vectors.search("docs", near("a b", 1))
    assert found.metadata == {"page": 2}


async def test_a_document_that_has_changed_holds_only_what_is_new(vectors: OrgVectors) -> None:
    await vectors.store(
        "docs", [Chunk("old", {}, "a"), Chunk("same", {}, "a"), Chunk("other", {}, "b")], WORDS
    )

    stored = await vectors.store("docs", [Chunk("new", {}, "a"), Chunk("same", {}, "a")], WORDS)

    assert (stored.added, stored.unchanged, stored.removed) == (1, 1, 1)
    found = contents(await vectors.search("docs", near("old new same other")))
    assert sorted(found) == ["new", "other", "same"]


async def test_without_replacing_a_document_grows(vectors: OrgVectors) -> None:
    await vectors.store("docs", [Chunk("one", {}, "a")], WORDS)

    stored = await vectors.store("docs", [Chunk("two", {}, "a")], WORDS, replace=False)

    assert (stored.added, stored.removed) == (1, 0)
    assert await vectors.counts("docs") == {"chunks": 2, "documents": 1}


async def test_a_document_that_has_become_blank_holds_nothing(vectors: OrgVectors) -> None:
    await vectors.store("docs", [Chunk("one", {}, "a")], WORDS)

    stored = await vectors.store("docs", [Chunk(" \n", {}, "a")], WORDS)

    assert (stored.added, stored.blank, stored.removed) == (0, 1, 1)


async def test_deleting_a_document_deletes_its_chunks_and_no_others(vectors: OrgVectors) -> None:
    await vectors.store(
        "docs", [Chunk("one", {}, "a"), Chunk("two", {}, "a"), Chunk("three", {}, "b")], WORDS
    )

    removed = await vectors.remove("docs", documents=["a", "no such"])

    assert removed == 2
    assert contents(await vectors.search("docs", near("one two three"))) == ["three"]


async def test_chunks_are_removed_by_id_and_by_filter(vectors: OrgVectors) -> None:
    await vectors.store(
        "docs", [Chunk("one", {"n": 1}, id="1"), Chunk("two", {"n": 2}), Chunk("x", {})], WORDS
    )

    assert await vectors.remove("docs", ids=["1"]) == 1
    assert await vectors.remove("docs", filter={"n": {"$gte": 2}}) == 1
    assert contents(await vectors.search("docs", near("one two x"))) == ["x"]
    assert await vectors.remove("docs") == 0
    assert (await vectors.counts("docs"))["chunks"] == 1


async def test_two_who_store_the_same_at_once_keep_it_once(pool: Pool) -> None:
    org = await new_org(pool)
    texts = [f"text number {n}" for n in range(50)]
    shuffled = [random.Random(n).sample(texts, 50) for n in range(6)]

    stored = await asyncio.gather(
        *(OrgVectors(pool, org).store("docs", chunks(*each), WORDS) for each in shuffled)
    )

    assert sum(each.added for each in stored) == 50
    assert len({each.collection.id for each in stored if each.collection}) == 1
    assert (await OrgVectors(pool, org).counts("docs"))["chunks"] == 50


async def test_an_organisation_sees_only_its_own(pool: Pool, vectors: OrgVectors) -> None:
    other = OrgVectors(pool, await new_org(pool))
    await vectors.store("docs", chunks("ours"), WORDS)
    await other.store("docs", chunks("theirs"), WORDS)

    assert contents(await vectors.search("docs", near("theirs", 100))) == ["ours"]
    assert contents(await other.search("docs", near("ours", 100))) == ["theirs"]
    await other.remove("docs", filter={"$not": {"x": 1}})
    assert await other.drop("docs")
    assert not await other.drop("docs")
    assert contents(await vectors.search("docs", near("ours"))) == ["ours"]
    assert await other.names() == []
    assert "no_collection: there is no collection 'docs'" in await refusal(other.search("docs", near("x")))


@pytest.mark.parametrize(
    ("embedder", "code"),
    [
        (Embedder("other words", WordVectors(), 64), "model_mismatch"),
        (Embedder("words", WordVectors(32), 32), "model_mismatch"),
        (Embedder("words", WordVectors(32)), "bad_vector"),
    ],
    ids=["another model", "another dimension", "another dimension than was known"],
)
async def test_another_model_or_dimension_is_refused(
    vectors: OrgVectors, embedder: Embedder, code: str
) -> None:
    await vectors.store("docs", chunks("a"), WORDS)

    said = await refusal(vectors.store("docs", chunks("b"), embedder))

    assert said.startswith(f"{code}: the collection 'docs' holds vectors of")
    assert "'words'" in said and "64" in said


async def test_another_distance_is_refused(vectors: OrgVectors) -> None:
    await vectors.store("docs", chunks("a"), WORDS)

    said = await refusal(vectors.store("docs", chunks("b"), WORDS, distance="l2"))

    assert said == "distance_mismatch: the collection 'docs' compares by cosine, not by l2"


@pytest.mark.parametrize(
    "vector",
    [[], [1.0] * 63, [math.nan] * 64, [math.inf] + [0.0] * 63, [1e300] * 64, ["x"] * 64, [None] * 64],
    ids=["empty", "too short", "nan", "infinite", "too large", "texts", "nulls"],
)
async def test_a_vector_that_is_none_is_refused(vectors: OrgVectors, vector: Any) -> None:
    await vectors.store("docs", chunks("a"), WORDS)

    assert (await refusal(vectors.search("docs", Query(vector=vector)))).startswith("bad_vector")


@pytest.mark.parametrize("k", [0, -1, 1001, 10**9])
async def test_a_search_gives_no_more_than_it_may(vectors: OrgVectors, k: int) -> None:
    await vectors.store("docs", chunks("a"), WORDS)

    assert (await refusal(vectors.search("docs", near("a", k)))).startswith(
        "bad_request: a search gives 1 to 1000"
    )


async def test_a_dimension_that_is_not_known_comes_with_the_first_vector(vectors: OrgVectors) -> None:
    unknown = dataclasses.replace(WORDS, dimension=None)

    nothing = await vectors.store("docs", chunks(" "), unknown)
    stored = await vectors.store("docs", chunks("a"), unknown)

    assert nothing.collection is None
    assert stored.collection is not None
    assert (stored.collection.dimension, stored.collection.model) == (64, "words")


@pytest.mark.parametrize("dimension", [1, 2000, 2001, 4000, 4001, 16_000])
async def test_vectors_of_every_size_are_kept_and_found(vectors: OrgVectors, dimension: int) -> None:
    embedder = Embedder("words", WordVectors(dimension), dimension)

    await vectors.store("docs", chunks("alpha beta", "gamma"), embedder)

    [found] = await vectors.search("docs", Query(vector=vector("alpha beta", dimension), k=1))
    assert found.score == pytest.approx(1, abs=0.01)


async def test_nothing_is_fixed_until_there_is_a_vector(vectors: OrgVectors) -> None:
    class Failing(WordVectors):
        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await vectors.store("docs", chunks("a"), Embedder("wrong", Failing(), 32))
    said = await refusal(vectors.store("docs", chunks("a"), Embedder("words", WordVectors(64), 32)))

    assert said == "bad_vector: vectors of 'words' have 64 dimensions, not 32"
    assert await vectors.names() == []
    assert (await vectors.store("docs", chunks("a"), WORDS)).added == 1


async def test_too_many_dimensions_are_refused(vectors: OrgVectors) -> None:
    embedder = Embedder("words", WordVectors(16_001))

    assert (await refusal(vectors.store("docs", chunks("a"), embedder))).startswith("bad_vector")


async def test_a_text_of_no_known_word_is_found_by_nothing_and_breaks_nothing(vectors: OrgVectors) -> None:
    await vectors.store("docs", chunks("!!!", "word"), WORDS)

    found = await vectors.search("docs", near("word", 5))

    assert [(each.content, round(each.score or 0, 2)) for each in found] == [("word", 1.0), ("!!!", 0.0)]
    assert len(await vectors.search("docs", near("?", 5))) == 2
    assert await vectors.search("docs", near("? & | ! ( '", 5, mode="keyword")) == []


HOSTILE = [
    "x'); DROP TABLE collection; --",
    '"quoted" %s %(org)s {chunks} {}',
    "new\nline\\ and ' \u202e \U0001f600",
    "a" * 200,
    "../../etc/passwd",
]


@pytest.mark.parametrize("text", HOSTILE)
async def test_names_and_texts_are_never_read_as_sql(vectors: OrgVectors, text: str) -> None:
    await vectors.store(text, [Chunk(text, {text: text}, text, text)], WORDS)

    for mode in ("vector", "keyword", "hybrid"):
        found = await vectors.search(text, near(text, mode=mode, filter={text: text}))
        if mode != "keyword" or found:
            assert [(each.id, each.document, each.content) for each in found] == [(text, text, text)]
    assert contents(await vectors.search(text, near(text, filter={"$not": {text: text}}))) == []
    assert await vectors.names() == [text]
    assert await vectors.remove(text, documents=[text], ids=[text], filter={text: text}) == 1


@pytest.mark.parametrize("name", ["", "  ", "a" * 201, "nul\x00", "half \ud800"])
async def test_a_name_that_cannot_be_kept_is_refused(vectors: OrgVectors, name: str) -> None:
    assert (await refusal(vectors.store(name, chunks("a"), WORDS))).startswith("bad_name")


async def test_a_language_that_postgres_does_not_know_is_refused(vectors: OrgVectors) -> None:
    for language in ("klingon", "english'; --", "", "x" * 1000):
        said = await refusal(vectors.store("docs", chunks("a"), WORDS, language=language))
        assert said.startswith("bad_language")
    assert await vectors.names() == []


async def test_texts_that_postgres_cannot_hold_are_kept_without_what_it_cannot(vectors: OrgVectors) -> None:
    await vectors.store("docs", [Chunk("a\x00b \ud800", {"\x00k": ["\x00", math.nan]}, "d\x00")], WORDS)

    [found] = await vectors.search("docs", near("ab"))

    assert (found.content, found.metadata, found.document) == ("ab ?", {"k": ["", None]}, "d")


async def test_a_huge_question_is_answered_by_its_first_words(vectors: OrgVectors) -> None:
    await vectors.store("docs", chunks("word7", "word99999"), WORDS)
    question = " ".join(f"word{n}" for n in range(100_000))

    assert contents(await vectors.search("docs", Query(question, mode="keyword"))) == ["word7"]


async def test_a_huge_text_is_kept(vectors: OrgVectors) -> None:
    text = " ".join(f"word{n}" for n in range(100_000))

    await vectors.store("docs", [Chunk(text, {"much": text[:50_000]})], WORDS)

    [found] = await vectors.search("docs", near("word17", mode="keyword"))
    assert found.content == text


DOCUMENTS = {
    "en": {"lang": "en", "year": 2020, "tags": ["news", "ai"], "author": {"name": "Ada"}},
    "de": {"lang": "de", "year": 2023, "tags": [], "draft": True, "score": 0.5},
    "fr": {"lang": "fr", "year": "2021", "a.b": 1, "note": None},
}


@pytest.mark.parametrize(
    ("filter", "fits"),
    [
        ({}, "de en fr"),
        ({"lang": "en"}, "en"),
        ({"lang": {"$ne": "en"}}, "de fr"),
        ({"tags": "news"}, "en"),
        ({"tags": {"$contains": "news"}}, "en"),
        ({"lang": {"$contains": "e"}}, "de en"),
        ({"lang": {"$contains": ".*"}}, ""),
        ({"year": {"$gt": 2020}}, "de"),
        ({"year": {"$gte": 2020, "$lt": 2023}}, "en"),
        ({"year": {"$gt": "2020"}}, "fr"),
        ({"year": {"$in": [2020, "2021"]}}, "en fr"),
        ({"year": {"$nin": [2020]}}, "de fr"),
        ({"year": {"$in": []}}, ""),
        ({"draft": True}, "de"),
        ({"draft": {"$exists": True}}, "de"),
        ({"draft": {"$exists": False}}, "en fr"),
        ({"note": None, "lang": "fr"}, "fr"),
        ({"author.name": "Ada"}, "en"),
        ({"a.b": 1}, "fr"),
        ({"score": {"$lte": 0.5}}, "de"),
        ({"$or": [{"lang": "en"}, {"draft": True}]}, "de en"),
        ({"$and": [{"lang": "en"}, {"year": 2023}]}, ""),
        ({"$not": {"$or": [{"lang": "en"}, {"lang": "de"}]}}, "fr"),
        ({"$or": []}, ""),
        ({"no such": "x"}, ""),
        ({'") || (1==1': "x"}, ""),
    ],
    ids=str,
)
async def test_a_filter_fits_what_it_says(vectors: OrgVectors, filter: Any, fits: str) -> None:
    await vectors.store("docs", [Chunk(name, meta) for name, meta in DOCUMENTS.items()], WORDS)

    for mode in ("vector", "hybrid"):
        found = await vectors.search("docs", near("en de fr", mode=mode, filter=filter))
        assert " ".join(sorted(contents(found))) == fits


@pytest.mark.parametrize("distance", ["cosine", "inner_product", "l2"])
async def test_enough_is_found_though_nearly_nothing_fits_the_filter(
    vectors: OrgVectors, pool: Pool, distance: Distance
) -> None:
    many = [Chunk(f"word{n % 40} common text", {"rare": n % 100 == 0}, id=str(n)) for n in range(3000)]
    await vectors.store("docs", many, dataclasses.replace(WORDS, batch=1000), distance=distance)
    async with pool.connection() as conn:
        await conn.execute("ANALYZE")

    found = await vectors.search("docs", near("word1 common text", 20, filter={"rare": True}))

    assert len(found) == 20
    assert all(each.metadata["rare"] for each in found)


async def test_an_index_serves_the_search_and_it_finds_what_is_nearest(
    vectors: OrgVectors, pool: Pool
) -> None:
    """Against brute force: vectors by their true distances, words by Postgres, both ranks fused."""
    rng = random.Random(7)
    texts = [" ".join(rng.choices([f"w{n}" for n in range(300)], k=12)) for _ in range(3000)]
    texts = list(dict.fromkeys(texts))
    await vectors.store("docs", chunks(*texts), dataclasses.replace(WORDS, batch=1000))
    async with pool.connection() as conn:
        await conn.execute("ANALYZE")
    by_text = {text: vector(text) for text in texts}
    hits = total = 0
    for _ in range(20):
        asked = " ".join(rng.choices([f"w{n}" for n in range(300)], k=4))
        wanted = vector(asked)
        far = {text: -round(sum(map(float.__mul__, by_text[text], wanted)), 6) for text in texts}
        ranked = sorted(texts, key=far.__getitem__)
        nearer = sorted(far.values())
        words = contents(await vectors.search("docs", near(asked, 40, mode="keyword")))
        scores: dict[str, float] = {}
        best: dict[str, float] = {}  # as if it came first of all that are equally near
        for rank, text in enumerate(ranked[:40], 1):
            scores[text] = 1 / (60 + rank)
        for text in texts:
            best[text] = 1 / (61 + bisect_left(nearer, far[text]))
        for rank, text in enumerate(words, 1):
            scores[text] = scores.get(text, 0) + 1 / (60 + rank)
            best[text] += 1 / (60 + rank)
        tenth = sorted(scores.values())[-10]

        found = contents(await vectors.search("docs", near(asked, 10, mode="hybrid")))

        hits += sum(best[text] >= tenth - 1e-9 for text in found)
        total += len(found)
    assert total == 200
    assert hits / total > 0.95


@pytest.mark.parametrize("distance", ["cosine", "inner_product", "l2"])
@pytest.mark.parametrize(("dimension", "kind"), [(64, "vector"), (2001, "halfvec")])
async def test_the_index_is_one_that_the_search_can_use(
    vectors: OrgVectors, pool: Pool, distance: Distance, dimension: int, kind: str
) -> None:
    embedder = Embedder("words", WordVectors(dimension), dimension)
    stored = await vectors.store("docs", chunks("a"), embedder, distance=distance)
    assert stored.collection is not None
    sign = {"cosine": "<=>", "inner_product": "<#>", "l2": "<->"}[distance]
    table, asked = f"chunk_{stored.collection.id.hex}", str(vector("a", dimension))
    async with pool.connection() as conn, conn.transaction():
        await conn.execute("SET LOCAL enable_seqscan = off")
        query = f"EXPLAIN SELECT id FROM {table} ORDER BY embedding {sign} '{asked}'::{kind} LIMIT 5"
        plan = str(await (await conn.execute(query)).fetchall())  # type: ignore[arg-type]

    assert "Index Scan using" in plan and "embedding_idx" in plan


async def test_what_died_half_way_goes_on_where_it_was(vectors: OrgVectors) -> None:
    class Mortal(WordVectors):
        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            if "text 7" in texts:
                raise ConnectionResetError
            return self.embed_documents(texts)

    given = [Chunk(f"text {n}", {}, "doc") for n in range(10)]
    old = [Chunk("old text", {}, "doc")]
    await vectors.store("docs", old, WORDS)
    with pytest.raises(ConnectionResetError):
        await vectors.store("docs", given, Embedder("words", Mortal(), 64, batch=3))
    still = await vectors.search("docs", near("old text", 20))
    words = WordVectors()

    stored = await vectors.store("docs", given, Embedder("words", words, 64, batch=3))

    assert "old text" in contents(still)
    assert (stored.added, stored.unchanged, stored.removed) == (4, 6, 1)
    assert words.asked == ["text 6", "text 7", "text 8", "text 9"]
    assert (await vectors.counts("docs"))["chunks"] == 10


@pytest.mark.parametrize("order", [["first", "last"], ["last", "first"]], ids=" before ".join)
async def test_of_two_versions_at_once_the_one_that_began_last_stays_whole(
    pool: Pool, order: list[str]
) -> None:
    org = await new_org(pool)
    gates = {name: asyncio.Event() for name in order}
    waiting = {name: asyncio.Event() for name in order}

    class Waiting(WordVectors):
        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            name = texts[0].split()[0]
            if name in gates:
                waiting[name].set()
                await gates[name].wait()
            return self.embed_documents(texts)

    async def store(name: str) -> None:
        version = [Chunk(text, {}, "doc") for text in (f"{name} one", "both", f"{name} two")]
        await OrgVectors(pool, org).store("docs", version, Embedder("words", Waiting(), 64, batch=1))

    await store("zero")
    tasks = {}
    for name in ("first", "last"):
        tasks[name] = asyncio.create_task(store(name))
        await asyncio.wait_for(waiting[name].wait(), 10)
    for name in order:
        gates[name].set()
        await tasks[name]

    found = contents(await OrgVectors(pool, org).search("docs", near("one both two", 20)))
    assert sorted(found) == ["both", "last one", "last two"]


async def test_many_versions_at_once_leave_one_of_them(pool: Pool) -> None:
    org = await new_org(pool)

    def version(n: int) -> list[Chunk]:
        return [Chunk(f"version {n} part {part}", {}, "doc") for part in range(5)]

    await asyncio.gather(
        *(
            OrgVectors(pool, org).store("docs", version(n), dataclasses.replace(WORDS, batch=2))
            for n in range(10)
        )
    )

    found = contents(await OrgVectors(pool, org).search("docs", near("version part", 100)))
    assert len(found) == 5
    assert len({text.split()[1] for text in found}) == 1


async def test_no_connection_is_held_while_a_model_is_waited_for(dsn: str) -> None:
    gate, waiting = asyncio.Event(), asyncio.Semaphore(0)

    class Slow(WordVectors):
        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            waiting.release()
            await gate.wait()
            return self.embed_documents(texts)

    async with make_pool(dsn, size=2) as pool:
        org = await new_org(pool)
        await OrgVectors(pool, org).store("docs", chunks("first"), WORDS)
        stores = [
            asyncio.create_task(
                OrgVectors(pool, org).store("docs", chunks(f"text {n}"), Embedder("words", Slow(), 64))
            )
            for n in range(8)
        ]
        for _ in stores:
            await asyncio.wait_for(waiting.acquire(), 20)

        counted = await OrgVectors(pool, org).counts("docs")

        gate.set()
        await asyncio.gather(*stores)
    assert counted == {"chunks": 1, "documents": 1}


async def test_words_find_what_has_most_of_them_in_any_form(vectors: OrgVectors) -> None:
    await vectors.store("docs", chunks("The running dogs", "a dog sleeps", "cats", "It runs"), WORDS)

    found = await vectors.search("docs", near("Do dogs run?", mode="keyword"))

    assert contents(found)[0] == "The running dogs"
    assert sorted(contents(found)[1:]) == ["It runs", "a dog sleeps"]
    assert all(0 < (each.score or 0) < 1 for each in found)


async def test_both_together_find_what_either_finds(vectors: OrgVectors) -> None:
    await vectors.store("docs", chunks("alpha beta", "alphas", "gamma"), WORDS)

    found = await vectors.search("docs", near("alpha", 3, mode="hybrid"))

    assert set(contents(found)[:2]) == {"alpha beta", "alphas"}  # 'alphas' by its stem only
    assert found[0].score == pytest.approx(1, abs=0.02)


async def test_a_choice_of_different_ones_leaves_out_what_says_the_same(vectors: OrgVectors) -> None:
    await vectors.store(
        "docs", chunks("red apple", "red apple pie", "red apple cake", "apple computer shares"), WORDS
    )

    same = await vectors.search("docs", near("red apple", 2))
    other = await vectors.search("docs", near("red apple", 2, diverse=True, balance=0.3))

    assert contents(same) == ["red apple", "red apple cake"] or contents(same) == [
        "red apple",
        "red apple pie",
    ]
    assert contents(other) == ["red apple", "apple computer shares"]


async def test_vectors_are_still_there_for_another_process(dsn: str, pool: Pool) -> None:
    org = await new_org(pool)
    await OrgVectors(pool, org).store("docs", chunks("kept"), WORDS)

    await migrate(dsn)
    async with make_pool(dsn) as another:
        found = await OrgVectors(another, org).search("docs", near("kept"))

    assert contents(found) == ["kept"]


async def test_a_collection_that_is_dropped_meanwhile_is_told(vectors: OrgVectors) -> None:
    class Dropping(WordVectors):
        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            await vectors.drop("docs")
            return self.embed_documents(texts)

    await vectors.store("docs", chunks("b"), WORDS)
    said = await refusal(vectors.store("docs", chunks("a"), Embedder("words", Dropping(), 64)))

    assert said == "no_collection: the collection was deleted just now"


async def test_a_model_that_gives_too_few_vectors_is_told(vectors: OrgVectors) -> None:
    class Lazy(WordVectors):
        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            return []

    assert "0 vectors for 1 texts" in await refusal(
        vectors.store("d", chunks("a"), Embedder("m", Lazy(), 64))
    )


def _found(id: str, score: float) -> Found:
    return Found(id=id, document_id=UUID(int=0), document=id, content=id, metadata={}, score=score)


def test_what_both_rankings_have_comes_before_what_one_has() -> None:
    a, b, c = (_found(each, 0.5) for each in "abc")

    found = fused([a, b], [b, c])

    assert [each.id for each in found] == ["b", "a", "c"]
    assert fused([a], [a])[0].score == 1.0
    assert fused([], []) == []


def test_a_choice_of_nothing_is_nothing_and_balance_one_keeps_the_order() -> None:
    found = [_found("a", 0.9), _found("b", 0.8), _found("c", 0.1)]

    assert different([], [], 3, 0.5) == []
    assert different(found, [Likeness("a", "b", 1.0)], 2, 1.0) == found[:2]
