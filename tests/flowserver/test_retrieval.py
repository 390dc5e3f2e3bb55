"""Drawings that store documents and find them again, with the real clients against servers of our own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.openai_server import OpenAIServer, Reply, ToolCall
from tests.retrieval_server import RetrievalServer
from tests.server import KEY, drawing, edge, events_of, node, serving
from tests.web_server import Reply as WebReply
from tests.web_server import Request, WebServer, reply_json

Client = httpx.AsyncClient

DOCUMENTS = [
    {"page_content": "The moon orbits the earth in 27 days", "metadata": {"source": "moon", "lang": "en"}},
    {"page_content": "Bread needs flour water salt and time", "metadata": {"source": "bread", "lang": "en"}},
    {"page_content": "Der Mond umkreist die Erde", "metadata": {"source": "mond", "lang": "de"}},
]


@pytest.fixture
async def models() -> AsyncIterator[RetrievalServer]:
    async with RetrievalServer(key="sk-canary-7f3a") as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, api_key=KEY, outbound_allow=("127.0.0.1",))


@pytest.fixture
async def client(settings: Settings, dsn: str) -> AsyncIterator[Client]:
    async with serving(create_app(settings, dsn)) as client:
        yield client


def embedder(models: RetrievalServer, id: str = "embedder", **more: Any) -> dict[str, Any]:
    given = {"base_url": models.openai, "api_key": models.key, "model": "words", "max_retries": 0}
    return node(id, "OpenAIEmbeddingsProvider", **given | more)


def storing(models: RetrievalServer, **settings: Any) -> dict[str, Any]:
    """Keep what the run is started with; the handles are those of the editors."""
    return drawing(
        node("start", "StartNode"),
        embedder(models),
        node("store", "VectorStoreOrchestrator", collection_name="docs", **settings),
        node("end", "EndNode"),
        edge("start", "store", "output", "documents"),
        edge("embedder", "store", "embeddings", "embedder"),
        edge("store", "end", "retriever", "target"),
    )


def searching(models: RetrievalServer, *more: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return drawing(
        node("start", "StartNode"),
        embedder(models),
        node("search", "Search", collection_name="docs", **settings),
        node("end", "EndNode"),
        edge("start", "search"),
        edge("embedder", "search", "embedder", "embedder"),
        edge("search", "end", "documents"),
        *more,
    )


async def run(client: Client, flow: Any, input: Any = None) -> Any:
    return (await client.post("/runs", json={"flow_data": flow, "input": input})).json()


async def output(client: Client, flow: Any, input: Any = None) -> Any:
    ended = await run(client, flow, input)
    assert ended["status"] == "succeeded", ended["error"]
    return ended["output"]


async def failure(client: Client, flow: Any, input: Any = None) -> Any:
    ended = await run(client, flow, input)
    assert ended["status"] == "failed", ended
    return ended["error"]


def sources(found: Any) -> list[str]:
    return [each["metadata"]["source"] for each in found]


async def test_documents_are_stored_and_found_by_meaning_and_words(
    client: Client, models: RetrievalServer
) -> None:
    stored = await output(client, storing(models), DOCUMENTS)
    found = await output(client, searching(models, k=2), "What orbits the earth?")

    assert {key: stored[key] for key in ("collection", "model", "dimension", "chunks", "added")} == {
        "collection": "docs",
        "model": "words",
        "dimension": 64,
        "chunks": 3,
        "added": 3,
    }
    assert sources(found)[0] == "moon"
    assert found[0]["page_content"] == DOCUMENTS[0]["page_content"]
    assert found[0]["metadata"]["lang"] == "en"
    assert found[0]["score"] > 0.9
    assert models.texts[-1] == "What orbits the earth?"


async def test_storing_the_same_again_asks_for_no_vectors(client: Client, models: RetrievalServer) -> None:
    await output(client, storing(models), DOCUMENTS)
    before = len(models.texts)

    again = await output(client, storing(models), DOCUMENTS)

    assert (again["added"], again["unchanged"], again["chunks"]) == (0, 3, 3)
    assert len(models.texts) == before


async def test_defect_5_what_a_store_gives_to_the_end_is_the_runs_output(
    client: Client, models: RetrievalServer
) -> None:
    """In the original, `retriever` → End gave "ERROR…" in a run that was said to be completed."""
    ended = await run(client, storing(models), "one text")

    assert (ended["status"], ended["output"]["added"]) == ("succeeded", 1)


@pytest.mark.parametrize(
    ("input", "texts"),
    [
        ("one text", ["one text"]),
        (["one", ["two", [{"text": "three"}]], None, " "], ["one", "two", "three"]),
        ({"documents": [{"content": "in a list"}]}, ["in a list"]),
        ([{"lc": 1, "type": "constructor", "id": ["x"], "kwargs": {"page_content": "dumped"}}], ["dumped"]),
        ([{"lc": 1, "type": "secret", "id": ["DATABASE_URL"]}], ['{"lc": 1, "type": "secret", "id": [']),
        ([{"a": 1}, 5, True], ['{"a": 1}', "5", "true"]),
        ([], []),
        (None, []),
    ],
    ids=["text", "nested", "outputs", "langchain", "secret", "others", "empty", "null"],
)
async def test_documents_come_in_many_forms(
    client: Client, models: RetrievalServer, input: Any, texts: list[str]
) -> None:
    stored = await output(client, storing(models), input)

    assert stored["added"] == len(texts)
    assert len(models.texts) == len(texts)
    assert all(known.startswith(text) for known, text in zip(models.texts, texts, strict=True))


@pytest.mark.parametrize(
    ("given", "metadata"),
    [
        ({}, {"source": "moon", "lang": "en", "n": 1}),
        (
            {"custom_metadata": '{"lang": "xx", "team": "a"}'},
            {"source": "moon", "lang": "xx", "team": "a", "n": 1},
        ),
        ({"custom_metadata": {"team": "a"}, "metadata_strategy": "replace"}, {"team": "a"}),
        (
            {"custom_metadata": {"team": "a"}, "metadata_strategy": "document_only"},
            {"source": "moon", "lang": "en", "n": 1},
        ),
        ({"custom_metadata": {"team": "a"}, "preserve_document_metadata": "false"}, {"team": "a"}),
    ],
    ids=["none", "merge", "replace", "document only", "not preserved"],
)
async def test_metadata_is_kept_as_the_strategy_says(
    client: Client, models: RetrievalServer, given: Any, metadata: Any
) -> None:
    """In the original it was lost."""
    document = {"page_content": "text", "metadata": {"source": "moon", "lang": "en", "n": 1}}

    await output(client, storing(models, **given), [document])

    [found] = await output(client, searching(models, mode="vector"), "text")
    assert found["metadata"] == metadata
    assert found["score"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"filter": {"lang": "de"}}, ["mond"]),
        ({"filter": '{"lang": "d", "source": "mo"}', "filter_strategy": "contains"}, ["mond"]),
        ({"filter": {"lang": "de", "source": "bread"}, "filter_strategy": "or"}, ["bread", "mond"]),
        ({"filter": {"source": {"$in": ["{{ input.source }}"]}}, "query": "{{ input.q }}"}, ["moon"]),
        ({"mode": "keyword", "query": "salt flour"}, ["bread"]),
        ({"mode": "vector", "score_threshold": 0.99, "query": "Der Mond umkreist die Erde"}, ["mond"]),
        ({"mode": "vector", "score_threshold": "0.999", "query": "nothing at all like it"}, []),
        ({"mode": "vector", "diverse": True, "k": "2", "query": "moon earth", "lambda_mult": 1}, None),
    ],
    ids=["exact", "contains", "or", "template", "keyword", "threshold", "too high", "diverse"],
)
async def test_a_search_does_what_its_settings_say(
    client: Client, models: RetrievalServer, given: Any, expected: Any
) -> None:
    await output(client, storing(models), DOCUMENTS)

    found = await output(client, searching(models, **given), {"q": "moon", "source": "moon"})

    assert len(found) == 2 if expected is None else sorted(sources(found)) == expected


async def test_without_an_embedder_words_are_searched(client: Client, models: RetrievalServer) -> None:
    await output(client, storing(models), DOCUMENTS)
    flow = drawing(node("search", "Search", collection_name="docs", query="flour"), node("end", "EndNode"))
    flow["edges"] = [edge("search", "end", "text")]
    before = len(models.texts)

    assert await output(client, flow) == f"[1] source: bread\n{DOCUMENTS[1]['page_content']}"
    assert len(models.texts) == before
    flow["nodes"][0]["data"]["mode"] = "vector"
    assert (await failure(client, flow))["code"] == "missing_embedder"


async def test_what_is_found_is_reranked(client: Client, models: RetrievalServer) -> None:
    texts = [f"common words and number{n}" for n in range(30)]
    await output(client, storing(models), texts)
    cohere = node("cohere", "CohereRerankerProvider", base_url=models.url, cohere_api_key=models.key, top_n=2)
    flow = searching(models, cohere, edge("cohere", "search", "output", "reranker"), mode="vector", k=5)

    found = await output(client, flow, "common words and number7")

    assert found[0]["page_content"] == "common words and number7"
    assert found[0]["score"] == 1.0
    assert len(found) == 2
    [asked] = [each for each in models.web.requests if each.path == "/v2/rerank"]
    assert len(asked.json["documents"]) == 20


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([WebReply(500), WebReply(503)], "http_status"),
        ([WebReply(401, b'{"message": "bad key sk-canary-7f3a"}')], "http_status"),
        ([WebReply(200, b"<html>")], "bad_answer"),
        ([WebReply(200, b"[" * 100_000)], "bad_answer"),
        ([reply_json({"results": [{"index": 0, "relevance_score": None}]})], "bad_answer"),
        ([WebReply(302, headers={"Location": "http://169.254.169.254/"})], "http_status"),
    ],
    ids=["down", "refused", "html", "deep", "null", "redirect"],
)
async def test_a_reranker_that_fails_is_told_without_its_words(
    client: Client, models: RetrievalServer, answers: list[WebReply], code: str
) -> None:
    await output(client, storing(models), DOCUMENTS)
    models.web.on("/v2/rerank", *answers)
    data = {"base_url": models.url, "api_key": models.key, "max_retries": 1}
    flow = searching(
        models, node("cohere", "CohereRerankerProvider", **data), edge("cohere", "search", None, "reranker")
    )

    error = await failure(client, flow, "moon")

    assert error["code"] == code
    assert "sk-canary" not in json.dumps(error)


async def test_a_reranker_that_is_busy_is_asked_again(client: Client, models: RetrievalServer) -> None:
    await output(client, storing(models), DOCUMENTS)
    good = reply_json(
        {"results": [{"index": 1, "relevance_score": 0.5}, {"index": 99, "relevance_score": 1}]}
    )
    models.web.on("/v2/rerank", WebReply(429, headers={"Retry-After": "0.01"}), good)
    data = {"base_url": models.url, "api_key": models.key}
    flow = searching(
        models, node("cohere", "CohereRerankerProvider", **data), edge("cohere", "search", None, "reranker")
    )

    found = await output(client, flow, "moon")

    assert [each["score"] for each in found] == [0.5]


def agent_with(models: RetrievalServer, openai: OpenAIServer, *more: dict[str, Any]) -> dict[str, Any]:
    """BPAZ's template *RAG Usage*, with its handles."""
    return drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat", api_key="sk", base_url=openai.url),
        embedder(models),
        node("agent", "Agent"),
        node("end", "EndNode"),
        edge("start", "agent", "output", "start"),
        edge("model", "agent", "output", "llm"),
        edge("agent", "end", "output", "target"),
        *more,
    )


async def test_an_agent_looks_things_up(client: Client, models: RetrievalServer) -> None:
    await output(client, storing(models), DOCUMENTS)
    call = ToolCall("lookup", {"query": "moon orbits"})
    async with OpenAIServer(Reply(tool_calls=[call]), "27 days") as openai:
        flow = agent_with(
            models,
            openai,
            node(
                "r",
                "RetrieverProvider",
                name="lookup",
                collection_name="docs",
                search_k=1,
                database_connection="postgres://u:sk-canary-7f3a@h/d",
            ),
            node("cohere", "CohereRerankerProvider", base_url=models.url, api_key=models.key),
            edge("embedder", "r", "embeddings", "embedder"),
            edge("cohere", "r", "output", "reranker"),
            edge("r", "agent", "retriever_tool", "tools"),
        )

        streamed = await client.post(
            "/runs", json={"flow_data": flow, "input": "how long?", "mode": "stream"}
        )

        events = events_of(streamed.text)
        assert events[-1]["output"] == "27 days"
        told = openai.chats[1]["messages"][-1]
        assert told["content"] == "[1] source: moon\nThe moon orbits the earth in 27 days"
        [tool] = openai.chats[0]["tools"]
        assert tool["function"]["name"] == "lookup"
        assert "'docs'" in tool["function"]["description"]
    assert "sk-canary" not in streamed.text


async def test_a_retriever_is_made_better_by_a_reranker(client: Client, models: RetrievalServer) -> None:
    await output(client, storing(models), [f"common words and number{n}" for n in range(30)])
    call = ToolCall("r", {"query": "common words and number7"})
    async with OpenAIServer(Reply(tool_calls=[call]), "done") as openai:
        flow = agent_with(
            models,
            openai,
            node("r", "RetrieverProvider", collection_name="docs", search_type="mmr"),
            node("better", "Reranker", base_url=models.url, api_key=models.key, top_n=1),
            edge("embedder", "r", "embeddings", "embedder"),
            edge("r", "better", "retriever_tool", "retriever"),
            edge("better", "agent", "reranked_retriever", "tools"),
        )

        assert await output(client, flow, "?") == "done"

        assert openai.chats[1]["messages"][-1]["content"] == "[1]\ncommon words and number7"


async def test_what_is_no_retriever_is_not_made_better(client: Client, models: RetrievalServer) -> None:
    async with OpenAIServer("never") as openai:
        flow = agent_with(
            models,
            openai,
            node("h", "HttpRequest", url="http://127.0.0.1/"),
            node("better", "Reranker", api_key="k"),
            edge("h", "better", "response", "retriever"),
            edge("better", "agent", "reranked_retriever", "tools"),
        )

        error = await failure(client, flow, "?")

    assert (error["code"], "no retriever" in error["message"]) == ("bad_binding", True)


async def test_an_agent_is_told_what_a_search_fails_by(client: Client, models: RetrievalServer) -> None:
    async with OpenAIServer(Reply(tool_calls=[ToolCall("r", {"query": "x"})]), "sorry") as openai:
        flow = agent_with(
            models,
            openai,
            node("r", "RetrieverProvider", collection_name="nowhere"),
            edge("embedder", "r", "embeddings", "embedder"),
            edge("r", "agent", "retriever_tool", "tools"),
        )

        assert await output(client, flow, "?") == "sorry"

        said = openai.chats[1]["messages"][-1]["content"]
    assert said.startswith("no_collection: there is no collection 'nowhere'")


async def test_defect_2_an_agent_has_every_retriever_that_is_connected(
    client: Client, models: RetrievalServer
) -> None:
    """In the original, only the first tool was."""
    await output(client, storing(models), DOCUMENTS)
    calls = [ToolCall("moon_notes", {"query": "moon"}), ToolCall("recipes", {"query": "bread flour"})]
    async with OpenAIServer(Reply(tool_calls=calls), "both") as openai:
        flow = agent_with(
            models,
            openai,
            node("r1", "RetrieverProvider", name="moon notes", collection_name="docs", search_k=1),
            node("r2", "RetrieverProvider", collection_name="docs", search_k=1, tool_name="recipes"),
            edge("embedder", "r1", "embeddings", "embedder"),
            edge("embedder", "r2", "embeddings", "embedder"),
            edge("r1", "agent", "retriever_tool", "tools"),
            edge("r2", "agent", "retriever_tool", "tools"),
        )

        assert await output(client, flow, "?") == "both"

        told = sorted(each["content"][:16] for each in openai.chats[1]["messages"] if each["role"] == "tool")
        assert told == ["[1] source: brea", "[1] source: moon"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"question": "moon"}, "bad_argument: the only argument is 'query', a text"),
        ({"query": ["moon"]}, "bad_argument: the only argument is 'query', a text"),
        ({"query": "moon", "k": 5}, "bad_argument: the only argument is 'query', a text"),
        ({}, "bad_argument: the only argument is 'query', a text"),
        ({"query": " "}, "missing_value: the question is blank"),
        ({"query": "x" * 20_000}, "[1]"),
    ],
    ids=["another name", "a list", "too many", "none", "blank", "huge"],
)
async def test_a_model_may_call_a_retriever_in_any_way(
    client: Client, models: RetrievalServer, arguments: Any, said: str
) -> None:
    await output(client, storing(models), ["moon"])
    async with OpenAIServer(Reply(tool_calls=[ToolCall("r", arguments)]), "ok") as openai:
        flow = agent_with(
            models,
            openai,
            node("r", "RetrieverProvider", collection_name="docs"),
            edge("embedder", "r", "embeddings", "embedder"),
            edge("r", "agent", "retriever_tool", "tools"),
        )

        assert await output(client, flow, "?") == "ok"
        assert openai.chats[1]["messages"][-1]["content"].startswith(said)


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_retrievers_filter_counts_if_it_is_switched_on(
    client: Client, models: RetrievalServer, enabled: bool
) -> None:
    """In the original, switching it on broke the retriever."""
    await output(client, storing(models), DOCUMENTS)
    async with OpenAIServer(Reply(tool_calls=[ToolCall("r", {"query": "moon"})]), "ok") as openai:
        data = {"enable_metadata_filtering": enabled, "metadata_filter": '{"lang": "de"}'}
        flow = agent_with(
            models,
            openai,
            node("r", "RetrieverProvider", collection_name="docs", **data),
            edge("embedder", "r", "embeddings", "embedder"),
            edge("r", "agent", "retriever_tool", "tools"),
        )
        await output(client, flow, "?")

        assert openai.chats[1]["messages"][-1]["content"].count("source:") == (1 if enabled else 3)


async def test_another_model_is_refused_before_anything_is_stored(
    client: Client, models: RetrievalServer
) -> None:
    await output(client, storing(models), DOCUMENTS)
    flow = storing(models)
    flow["nodes"][1]["data"]["model"] = "{{ input.model }}"

    error = await failure(client, flow, {"model": "text-embedding-3-small"})

    assert error["code"] == "model_mismatch"
    assert "'words' (64 dimensions)" in error["message"]


async def test_another_model_may_begin_anew_and_until_then_the_old_one_is_there(
    client: Client, models: RetrievalServer
) -> None:
    await output(client, storing(models), DOCUMENTS)
    flow = storing(models, pre_delete_collection=True, search_algorithm="euclidean")
    flow["nodes"][1]["data"]["model"] = "text-embedding-3-large"
    flow["nodes"][1]["data"]["api_key"] = "wrong"

    failed = await run(client, flow, ["anew"])
    kept = await output(client, searching(models), "moon")
    flow["nodes"][1]["data"]["api_key"] = models.key
    stored = await output(client, flow, ["anew"])

    assert failed["status"] == "failed"
    assert sources(kept)[0] == "moon"
    assert (stored["model"], stored["dimension"], stored["chunks"]) == ("text-embedding-3-large", 3072, 1)
    assert stored["distance"] == "l2"


async def test_documents_are_deleted_by_a_step(client: Client, models: RetrievalServer) -> None:
    await output(client, storing(models), DOCUMENTS)

    def deleting(**settings: Any) -> Any:
        return drawing(node("d", "DeleteDocuments", collection_name="docs", **settings))

    assert await output(client, deleting(documents="moon")) == 1
    assert await output(client, deleting(what="filter", filter={"lang": "de"})) == 1
    assert sources(await output(client, searching(models), "moon")) == ["bread"]
    assert await output(client, deleting(what="collection")) == 1
    assert await output(client, deleting(what="collection")) == 0
    assert (await failure(client, deleting(documents=["bread"])))["code"] == "no_collection"


@pytest.mark.parametrize(
    ("type", "given", "words"),
    [
        ("Search", {"filter": "{"}, "'filter' must be a JSON object"),
        ("Search", {"filter": {"a": {"$where": "1"}}}, "unknown operation '$where'"),
        ("Search", {"k": 0}, "from 1 to 1000"),
        ("Search", {"k": 10**9}, "from 1 to 1000"),
        ("Search", {"mode": "magic"}, "hybrid"),
        ("DeleteDocuments", {}, "nothing could be removed"),
        ("DeleteDocuments", {"what": "filter", "filter": "[]"}, "JSON object"),
        (
            "VectorStoreOrchestrator",
            {"custom_metadata": "nonsense"},
            "'custom_metadata' must be a JSON object",
        ),
        ("VectorStoreOrchestrator", {"metadata_strategy": "x"}, "merge"),
        ("VectorStoreOrchestrator", {"collection_name": "a" * 201}, "collection_name"),
        ("VectorStoreOrchestrator", {"batch_size": 0}, "from 1 to 1000"),
        ("RetrieverProvider", {"metadata_filter": '{"$bad": 1}'}, "unknown condition '$bad'"),
        ("RetrieverProvider", {"score_threshold": -1}, "at least 0"),
        ("OpenAIEmbeddingsProvider", {"dimensions": 10**6}, "from 0 to 16000"),
        ("CohereRerankerProvider", {"top_n": 0}, "from 1 to 1000"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_wrong_settings_are_told_before_a_run(
    client: Client, type: str, given: Any, words: str
) -> None:
    checked = await client.post("/workflows/check", json={"flow_data": drawing(node("n", type, **given))})

    problems = [each for each in checked.json()["problems"] if each["code"] == "bad_config"]
    assert any(words in each["message"] for each in problems), checked.json()


async def test_defect_11_no_key_is_in_any_event_or_answer(
    client: Client, models: RetrievalServer, dsn: str
) -> None:
    wrong = storing(models)
    wrong["nodes"][1]["data"]["api_key"] = "sk-canary-7f3a-wrong"
    wrong["nodes"][2]["data"]["connection_string"] = "postgresql://u:sk-canary-7f3a@h/d"

    streamed = await client.post("/runs", json={"flow_data": wrong, "input": ["text"], "mode": "stream"})
    cohere = node("cohere", "CohereRerankerProvider", base_url=models.url, api_key="sk-canary-7f3a-other")
    models.key = "sk-canary-7f3a"
    await output(client, storing(models), DOCUMENTS)
    flow = searching(models, cohere, edge("cohere", "search", None, "reranker"))
    again = await client.post("/runs", json={"flow_data": flow, "input": "moon", "mode": "stream"})

    for told in (streamed, again):
        assert events_of(told.text)[-1]["event"] == "run.failed"
        assert "sk-canary" not in told.text


async def test_an_embedder_that_the_operator_does_not_allow_is_not_reached(
    tmp_path: Path, dsn: str, models: RetrievalServer
) -> None:
    async with serving(create_app(Settings(data_dir=tmp_path, api_key=KEY), dsn)) as client:
        error = await failure(client, storing(models), ["text"])

    assert error["code"] == "url_not_allowed"
    assert models.web.requests == []


async def test_an_index_survives_a_restart(settings: Settings, dsn: str, models: RetrievalServer) -> None:
    async with serving(create_app(settings, dsn)) as client:
        await output(client, storing(models), DOCUMENTS)
    async with serving(create_app(settings, dsn)) as client:
        assert sources(await output(client, searching(models), "moon earth"))[0] == "moon"


async def test_the_operators_own_server_and_key_are_used_where_a_drawing_gives_none(
    tmp_path: Path, dsn: str, models: RetrievalServer
) -> None:
    settings = Settings(
        data_dir=tmp_path, api_key=KEY, openai_base_url=models.openai, openai_api_key=models.key
    )
    async with serving(create_app(settings, dsn)) as client:
        flow = storing(models)
        flow["nodes"][1]["data"] = {
            "model": "text-embedding-3-small",
            "dimensions": "1536",
            "credential_id": "",
        }

        stored = await output(client, flow, ["text"])

    assert (stored["dimension"], models.texts) == (1536, ["text"])
    assert "dimensions" not in models.web.requests[0].json


@pytest.mark.parametrize("url", ["http://[", "ftp://x/v1", "nonsense", "http://169.254.169.254/v1"])
@pytest.mark.parametrize("type", ["OpenAIEmbeddingsProvider", "CohereRerankerProvider"])
async def test_a_server_that_is_none_fails_the_step_and_nothing_else(
    client: Client, models: RetrievalServer, type: str, url: str
) -> None:
    await output(client, storing(models), DOCUMENTS)
    flow = searching(models, node("x", type, base_url=url, api_key="k", max_retries=0, model="words"))
    if type == "CohereRerankerProvider":
        flow["edges"].append(edge("x", "search", None, "reranker"))
    else:
        flow["edges"] = [each for each in flow["edges"] if each["source"] != "embedder"]
        flow["edges"].append(edge("x", "search", None, "embedder"))

    assert (await client.post("/workflows/check", json={"flow_data": flow})).status_code == 200
    assert (await failure(client, flow, "moon"))["code"] != "internal"


async def test_a_thousand_texts_are_stored_in_batches(client: Client, models: RetrievalServer) -> None:
    texts = [f"text number {n}" for n in range(1000)]

    stored = await output(client, storing(models, batch_size="250"), texts)

    assert (stored["added"], stored["documents"]) == (1000, 1000)
    assert len([each for each in models.web.requests if each.path == "/v1/embeddings"]) <= 11


async def test_keys_come_from_credentials(client: Client, models: RetrievalServer) -> None:
    async def kept(name: str, base_url: str) -> str:
        data = {"api_key": models.key, "base_url": base_url}
        made = await client.post("/credentials", json={"name": name, "data": data})
        return str(made.json()["id"])

    openai, cohere = await kept("openai", models.openai), await kept("cohere", models.url)
    by_credential = node("embedder", "OpenAIEmbeddingsProvider", model="words", credential_id=openai)
    store = storing(models)
    store["nodes"][1] = by_credential
    call = ToolCall("r", {"query": "moon"})
    async with OpenAIServer(Reply(tool_calls=[call]), "done") as chat:
        flow = agent_with(
            models,
            chat,
            node("r", "RetrieverProvider", collection_name="docs", search_k=1),
            node("better", "Reranker", credential_id=cohere),
            edge("embedder", "r", "embeddings", "embedder"),
            edge("r", "better", "retriever_tool", "retriever"),
            edge("better", "agent", "reranked_retriever", "tools"),
        )
        flow["nodes"] = [by_credential if each["id"] == "embedder" else each for each in flow["nodes"]]
        await output(client, store, DOCUMENTS)

        assert await output(client, flow, "?") == "done"
        assert chat.chats[1]["messages"][-1]["content"].startswith("[1] source: moon")
    search = searching(
        models,
        node("cohere", "CohereRerankerProvider", credential_id=cohere),
        edge("cohere", "search", None, "reranker"),
    )
    assert sources(await output(client, search, "the moon orbits"))[0] == "moon"


def _reflected(request: Request) -> WebReply:
    """A server that tells everything that it was sent."""
    told = json.dumps({"headers": dict(request.headers), "body": request.body.decode(errors="replace")})
    return WebReply(401, json.dumps({"message": told, "error": {"message": told}}).encode())


@pytest.mark.parametrize("type", ["OpenAIEmbeddingsProvider", "CohereRerankerProvider", "Reranker"])
async def test_mt_07_a_credential_of_retrieval_stands_in_no_event_row_or_error(
    client: Client, models: RetrievalServer, dsn: str, type: str
) -> None:
    canary = "CNRY-41c7aa"
    await output(client, storing(models), DOCUMENTS)
    async with WebServer() as web:
        for path in ("/embeddings", "/v2/rerank"):
            web.on(path, _reflected)
        data = {"name": "c", "data": {"api_key": canary, "base_url": web.url("")}}
        credential = (await client.post("/credentials", json=data)).json()["id"]
        if type == "OpenAIEmbeddingsProvider":
            flow = storing(models)
            flow["nodes"][1]["data"] = {"model": "words", "credential_id": credential, "max_retries": 0}
            told = await run(client, flow, ["another text"])
        elif type == "CohereRerankerProvider":
            part = node("x", type, credential_id=credential, max_retries=0)
            told = await run(client, searching(models, part, edge("x", "search", None, "reranker")), "moon")
        else:
            call = ToolCall("r", {"query": "moon"})
            async with OpenAIServer(Reply(tool_calls=[call]), "done") as chat:
                flow = agent_with(
                    models,
                    chat,
                    node("r", "RetrieverProvider", collection_name="docs"),
                    node("better", type, credential_id=credential, max_retries=0),
                    edge("embedder", "r", "embeddings", "embedder"),
                    edge("r", "better", "retriever_tool", "retriever"),
                    edge("better", "agent", "reranked_retriever", "tools"),
                )
                told = await run(client, flow, "?")
                assert canary not in json.dumps(chat.chats)
        events = (await client.get(f"/runs/{told['id']}/events")).text

    assert any(canary in str(request.headers) for request in web.requests)
    assert canary not in json.dumps(told) + events
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        for (table,) in await (await conn.execute(tables)).fetchall():
            rows = await conn.execute(SQL("SELECT t::text FROM {} AS t").format(Identifier(table)))
            assert canary not in "".join(row[0] for row in await rows.fetchall()), table
