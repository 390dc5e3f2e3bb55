"""Long-term memories: what is remembered, where, and that nobody else recalls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flowserver.app import create_app
from flowserver.db import Pool
from flowserver.memories import OrgMemories
from flowserver.settings import Settings
from nodes.contract import NodeError
from nodes.vectors import Embedder
from tests.embeddings import WordVectors
from tests.flowserver.conftest import new_org
from tests.retrieval_server import RetrievalServer
from tests.server import KEY, drawing, edge, node, serving

WORDS = Embedder("words", WordVectors(), 64)


@pytest.fixture
async def memories(pool: Pool) -> OrgMemories:
    return OrgMemories(pool, await new_org(pool), uuid4())


async def texts(memories: OrgMemories, place: str, **how: Any) -> list[str]:
    return [each.text for each in await memories.read(place, **how)]


async def refusal(what: Any) -> str:
    with pytest.raises(NodeError) as caught:
        await what
    return caught.value.code


async def test_what_is_near_comes_first_and_without_a_question_what_is_newest(memories: OrgMemories) -> None:
    for text in ("likes red apples", "lives in Berlin", "has a red car"):
        await memories.write("users/ada", text, embedder=WORDS)

    near = await memories.read("users/ada", query="likes apples", limit=2, embedder=WORDS)

    assert near[0].text == "likes red apples"
    assert 1 > (near[0].score or 0) > (near[1].score or 0) >= 0
    assert await texts(memories, "users/ada", limit=1) == ["has a red car"]


async def test_the_same_is_remembered_once_and_a_key_has_one_memory(memories: OrgMemories) -> None:
    first = await memories.write("p", "same", embedder=WORDS)
    again = await memories.write("p", "same", embedder=WORDS)
    await memories.write("p", "speaks English", key="language", metadata={"n": 1})
    await memories.write("p", "speaks German", key="language", metadata={"n": 2}, embedder=WORDS)

    assert first == again
    found = {each.key: (each.text, each.metadata) for each in await memories.read("p")}
    assert found == {first: ("same", {}), "language": ("speaks German", {"n": 2})}
    assert await texts(memories, "p", query="speaks", embedder=WORDS, limit=1) == ["speaks German"]
    await memories.forget("p", "language")
    await memories.forget("p", "language")
    assert await texts(memories, "p") == ["same"]


async def test_a_memory_written_anew_is_not_found_by_what_it_was(memories: OrgMemories) -> None:
    await memories.write("p", "old words", key="k", embedder=WORDS)
    await memories.write("p", "new text", key="k")

    assert await texts(memories, "p", query="old words", embedder=WORDS) == []
    assert await texts(memories, "p") == ["new text"]


async def test_a_place_holds_what_is_below_it_and_nothing_beside_it(memories: OrgMemories) -> None:
    for place in ("users/1", "users/10", "users/1/notes", "users/a.b@c.d", "users/a%2Eb", "/users//1/"):
        await memories.write(place, place)

    assert sorted(await texts(memories, "users/1")) == ["/users//1/", "users/1", "users/1/notes"]
    assert await texts(memories, "users/a.b@c.d") == ["users/a.b@c.d"]
    assert await texts(memories, "users/a%2Eb") == ["users/a%2Eb"]
    assert await texts(memories, "users/%") == []
    assert len(await texts(memories, "users", limit=10)) == 6


async def test_a_workflow_has_a_place_to_itself_and_an_organisation_too(pool: Pool) -> None:
    org, other = await new_org(pool), await new_org(pool)
    one, two = (OrgMemories(pool, org, uuid4()) for _ in range(2))
    stranger = OrgMemories(pool, other, None)
    await one.write("", "mine")
    await one.write("shared", "ours")

    assert await texts(one, "") == ["mine"]
    assert await texts(two, "") == []
    assert await texts(two, "shared") == ["ours"]
    assert await texts(stranger, "shared") == []
    assert await texts(stranger, f"../{org.hex}/shared") == []
    assert await texts(OrgMemories(pool, org, None), "") == []


async def test_another_model_does_not_see_what_it_cannot_compare(memories: OrgMemories) -> None:
    await memories.write("p", "by words", embedder=WORDS)
    await memories.write("p", "by others", embedder=Embedder("others", WordVectors(8), 8))

    assert await texts(memories, "p", query="by words", embedder=WORDS) == ["by words"]
    assert len(await texts(memories, "p")) == 2
    shrunk = Embedder("words", WordVectors(8), 8)
    assert await refusal(memories.read("p", query="by words", embedder=shrunk)) == "model_mismatch"


@pytest.mark.parametrize("text", ["", " \n", "\x00", "x" * 100_001], ids=["empty", "blank", "nul", "huge"])
async def test_what_cannot_be_remembered_is_refused(memories: OrgMemories, text: str) -> None:
    assert await refusal(memories.write("p", text)) == "bad_input"


@pytest.mark.parametrize("place", ["a/" * 11, "x" * 201], ids=["deep", "long"])
async def test_what_is_no_place_is_refused(memories: OrgMemories, place: str) -> None:
    assert await refusal(memories.write(place, "text")) == "bad_name"
    assert await refusal(memories.read(place)) == "bad_name"


@pytest.mark.parametrize("hostile", ["x'); DROP TABLE store; --", "%s %(a)s {}", "\\ \u202e \x00 \ud800"])
async def test_hostile_texts_are_texts(memories: OrgMemories, hostile: str) -> None:
    key = await memories.write(hostile, hostile, key=hostile, metadata={"k": "v"}, embedder=WORDS)

    [found] = await memories.read(hostile, query=hostile, embedder=WORDS)

    assert found.key == key
    assert found.text == hostile.replace("\x00", "").replace("\ud800", "?")


@pytest.mark.parametrize("limit", [0, 201])
async def test_only_so_many_are_read(memories: OrgMemories, limit: int) -> None:
    assert await refusal(memories.read("p", limit=limit)) == "bad_request"


async def test_a_run_remembers_and_a_later_one_recalls(tmp_path: Path, dsn: str) -> None:
    settings = Settings(data_dir=tmp_path, api_key=KEY, outbound_allow=("127.0.0.1",))
    async with RetrievalServer() as models, serving(create_app(settings, dsn)) as client:
        embedder = node("e", "OpenAIEmbeddingsProvider", base_url=models.openai, model="words")
        place = {"place": "users/{{ input.user }}"}
        write = drawing(
            embedder,
            node("start", "StartNode"),
            node("w", "MemoryWrite", text="{{ input.fact }}", metadata={"by": "test"}, **place),
            edge("start", "w"),
            edge("e", "w", "embeddings", "embedder"),
        )
        read = drawing(
            embedder,
            node("start", "StartNode"),
            node("r", "MemoryRead", query="{{ input.question }}", limit="1", **place),
            node("end", "EndNode"),
            edge("start", "r"),
            edge("r", "end", "text", "target"),
            edge("e", "r", "embeddings", "embedder"),
        )
        for user, fact in (("a.da@x", "likes tea"), ("a.da@x", "owns a cat"), ("bob", "likes tea")):
            ended = await client.post(
                "/runs", json={"flow_data": write, "input": {"user": user, "fact": fact}}
            )
            assert ended.json()["status"] == "succeeded", ended.text

        async def recalled(user: str, question: str) -> Any:
            given = {"user": user, "question": question}
            return (await client.post("/runs", json={"flow_data": read, "input": given})).json()["output"]

        assert await recalled("a.da@x", "a cat?") == "- owns a cat"
        assert await recalled("bob", "a cat?") == "- likes tea"
        assert await recalled("eve", "a cat?") == ""
        blank = await client.post("/runs", json={"flow_data": write, "input": {"user": "a", "fact": " "}})
        assert blank.json()["error"]["code"] == "missing_value"
