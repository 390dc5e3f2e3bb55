"""Credentials over HTTP, in Postgres, and in the hands of runs."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowserver.app import create_app
from flowserver.assembly import assemble
from flowserver.credentials import RunCredentials, detected, secret_texts
from flowserver.doors import Visitor
from flowserver.errors import Unavailable
from flowserver.settings import Settings
from graphs.kinds import extra, fields
from nodes import registry
from nodes.contract import NodeError
from tests.openai_server import OpenAIServer, Reply
from tests.server import KEY, drawing, edge, node, serving
from tests.web_server import Reply as Answer
from tests.web_server import Request, WebServer

Client = httpx.AsyncClient

CANARY = "sk-CNRY-4f1d2a"


@pytest.fixture
async def client_of_openai(tmp_path: Path, dsn: str) -> AsyncIterator[tuple[Client, OpenAIServer]]:
    """A client of a server that may reach a model server on this machine."""
    settings = Settings(data_dir=tmp_path, api_key=KEY, outbound_allow=("127.0.0.1",))
    async with OpenAIServer() as openai, serving(create_app(settings, dsn)) as client:
        yield client, openai


async def kept(client: Client, **more: Any) -> Any:
    body = {"name": "mine", "data": {"api_key": CANARY}} | more
    response = await client.post("/credentials", json=body)
    assert response.status_code == 201, response.text
    return response.json()


async def test_a_credential_is_kept_listed_changed_and_deleted(client: Client) -> None:
    made = await kept(client, data={"api_key": CANARY, "organization": "org-1"})
    path = f"/credentials/{made['id']}"

    assert (made["name"], made["service_type"], made["fields"]) == (
        "mine",
        "openai",
        ["api_key", "organization"],
    )
    assert (await client.get(path)).json() == made
    assert (await client.get("/credentials")).json() == {"items": [made], "next": None}
    changed = (
        await client.patch(path, json={"name": "yours", "data": {"organization": None, "port": 5}})
    ).json()
    assert (changed["name"], changed["fields"], changed["id"]) == ("yours", ["api_key", "port"], made["id"])
    assert (await client.get("/credentials?name=yours")).json()["items"] == [changed]
    assert (await client.get("/credentials?name=mine")).json()["items"] == []
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404


async def test_lists_of_credentials_come_in_pages(client: Client) -> None:
    names = [(await kept(client, name=f"c{number}"))["name"] for number in range(5)]

    first = (await client.get("/credentials?limit=3")).json()
    rest = (await client.get(f"/credentials?limit=3&cursor={first['next']}")).json()

    assert [each["name"] for each in (*first["items"], *rest["items"])] == names[::-1]
    assert rest["next"] is None


async def test_what_is_in_a_credential_never_comes_back_and_is_not_in_the_database(
    client: Client, dsn: str
) -> None:
    made = await kept(client)
    path = f"/credentials/{made['id']}"
    answers = [
        await client.get(path),
        await client.get("/credentials"),
        await client.patch(path, json={"name": "other"}),
        await client.get(f"{path}/secret"),
        await client.post("/credentials", json={"name": "other", "data": {"api_key": CANARY}}),
        await client.post("/credentials", json={"name": "x", "data": {"api_key": [CANARY]}}),
        await client.patch(path, json={"data": {"bad key": CANARY}}),
    ]

    assert not any(CANARY in answer.text for answer in answers)
    assert [each.status_code for each in answers] == [200, 200, 200, 404, 409, 422, 422]
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        rows = await (await conn.execute("SELECT credential::text FROM credential")).fetchall()
    assert CANARY not in str(rows) and b64encode(CANARY.encode()).decode()[:-2] not in str(rows)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": "", "data": {"a": "b"}}, "'name' must have"),
        ({"name": "x" * 201, "data": {"a": "b"}}, "'name' must have"),
        ({"name": "n", "data": {}}, "no field"),
        ({"name": "n", "data": {"a": {}}}, "'data.a' must be a text"),
        ({"name": "n", "data": {"a": None}}, "'data.a' must be a text"),
        ({"name": "n", "data": {"a": "\x00"}}, "'data.a' must be a text"),
        ({"name": "n", "data": {"a": "x" * 100_001}}, "at most 100000"),
        ({"name": "n", "data": {"a b": "x"}}, "'a b' is no name"),
        ({"name": "n", "data": {f"f{n}": "x" for n in range(51)}}, "at most 50"),
        ({"name": "n", "data": {"a": "b"}, "hosts": ["https://a"]}, "no host name"),
        ({"name": "n", "data": {"a": "b"}, "service_type": " "}, "'service_type' must have"),
    ],
)
async def test_what_cannot_be_kept_is_refused_in_words(client: Client, body: Any, words: str) -> None:
    response = await client.post("/credentials", json=body)

    assert response.status_code == 422
    assert words in response.json()["detail"]


async def test_two_of_one_name_are_refused_both_ways(client: Client) -> None:
    await kept(client, name="a")
    other = await kept(client, name="b")

    again = await client.post("/credentials", json={"name": "a", "data": {"x": "y"}})
    renamed = await client.patch(f"/credentials/{other['id']}", json={"name": "a"})

    assert (again.status_code, renamed.status_code) == (409, 409)
    assert again.json()["type"].endswith(":name_taken")


@pytest.mark.parametrize(
    ("data", "service"),
    [
        ({"connection_string": "postgresql://a@b/c"}, "postgresql_vectorstore"),
        (dict.fromkeys(("host", "port", "database", "username", "password"), "x"), "postgresql_vectorstore"),
        ({"api_key": "k", "provider": "cohere"}, "cohere"),
        ({"api_key": "k", "organization": ""}, "openai"),
        ({"api_key": "k", "project_id": "p"}, "openai"),
        ({"api_key": "k", "model": "m"}, "anthropic"),
        ({"api_key": "k", "cse_id": "c"}, "google"),
        ({"api_key": "k"}, "generic_api"),
        ({"access_token": "t"}, "oauth"),
        ({"username": "u", "password": "p"}, "basic_auth"),
        ({"private_key": "k"}, "certificate"),
        ({"token": "t"}, "custom"),
    ],
)
def test_the_fields_tell_the_service(data: dict[str, str], service: str) -> None:
    assert detected(data) == service


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=50)))
def test_any_fields_tell_some_service_and_have_secrets(data: dict[str, str]) -> None:
    assert detected(data)
    assert secret_texts(data) <= {value for value in data.values() if len(value) >= 4} | secret_texts(data)


def test_the_password_of_a_url_is_a_secret_of_its_own() -> None:
    found = secret_texts({"connection_string": "postgres://me:p%40ssw0rd@db/x", "host": "db.example.com"})

    assert {"p%40ssw0rd", "p@ssw0rd"} <= found
    assert "db.example.com" not in found


async def test_the_start_is_refused_while_a_needed_key_is_missing(tmp_path: Path, dsn: str) -> None:
    one, two = (f"{id}:{b64encode(bytes([n] * 32)).decode()}" for n, id in enumerate(("one", "two")))
    settings = Settings(data_dir=tmp_path, api_key=KEY, encryption_keys=(one,))
    async with serving(create_app(settings, dsn)) as client:
        made = await kept(client)

    for keys in ((two,), ()):
        with pytest.raises(Unavailable, match=r"'one', which is not loaded.*FLOWSERVER_ENCRYPTION_KEYS"):
            async with assemble(msgspec.structs.replace(settings, encryption_keys=keys), dsn):
                pass
    async with assemble(msgspec.structs.replace(settings, encryption_keys=(two, one)), dsn) as flowserver:
        org = UUID("00000000-0000-7000-8000-000000000001")
        values, _ = await flowserver.credentials.opened(org, UUID(made["id"]))
        assert values == {"api_key": CANARY}


async def test_a_server_without_a_key_keeps_nothing_and_says_why(tmp_path: Path, dsn: str) -> None:
    settings = Settings(data_dir=tmp_path, api_key=KEY, host="0.0.0.0")
    async with serving(create_app(settings, dsn)) as client:
        response = await client.post("/credentials", json={"name": "n", "data": {"a": "b"}})

    assert response.status_code == 503
    assert "FLOWSERVER_ENCRYPTION_KEYS" in response.json()["detail"]


async def test_secrets_swapped_between_rows_do_not_open(client: Client, dsn: str) -> None:
    a, b = await kept(client, name="a"), await kept(client, name="b")
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.execute(
            "UPDATE credential SET secret = (SELECT secret FROM credential WHERE name = 'a') WHERE name = 'b'"
        )

    partly = await client.patch(f"/credentials/{b['id']}", json={"data": {"other": "x"}})
    anew = await client.patch(f"/credentials/{b['id']}", json={"data": {"api_key": "x"}})

    assert (partly.status_code, partly.json()["type"]) == (409, "urn:flowserver:problem:secret_unreadable")
    assert anew.status_code == 200
    assert a["id"] != b["id"]


def chat(credential: str | None, **more: Any) -> dict[str, Any]:
    return drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat", credential_id=credential, **more),
        node("agent", "Agent"),
        node("end", "EndNode"),
        edge("start", "agent"),
        edge("model", "agent", "output", "llm"),
        edge("agent", "end"),
    )


async def test_a_step_uses_the_credential_that_its_drawing_names(
    client_of_openai: tuple[Client, OpenAIServer],
) -> None:
    client, openai = client_of_openai
    made = await kept(client, data={"api_key": CANARY, "base_url": openai.url})

    run = (
        await client.post("/runs", json={"flow_data": chat(made["id"], api_key="sk-old"), "input": "x"})
    ).json()

    assert run["status"] == "succeeded", run
    assert openai.requests[-1].headers["authorization"] == f"Bearer {CANARY}"


async def test_a_key_is_kept_and_sent_without_what_was_copied_along(
    client_of_openai: tuple[Client, OpenAIServer],
) -> None:
    client, openai = client_of_openai
    made = await kept(client, data={"api_key": f" {CANARY}\r\n", "base_url": f"{openai.url}\n"})

    run = (await client.post("/runs", json={"flow_data": chat(made["id"]), "input": "x"})).json()

    assert run["status"] == "succeeded", run
    assert openai.requests[-1].headers["authorization"] == f"Bearer {CANARY}"


@pytest.mark.parametrize("name", ["01900000-0000-7000-8000-00000000dead", "not-an-id", "x" * 5000])
async def test_sec_21_a_credential_that_is_not_there_is_a_problem_of_the_drawing(
    client: Client, name: str
) -> None:
    flow = chat(name)
    flow["nodes"][1]["type"] = "OpenAICompatibleNode"
    checked = (await client.post("/workflows/check", json={"flow_data": flow})).json()
    refused = await client.post("/runs", json={"flow_data": flow})
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": flow})).json()
    not_run = await client.post(f"/workflows/{saved['id']}/runs", json={})

    problem = checked["problems"][0]
    assert (problem["code"], problem["severity"], problem["where"]) == (
        "unknown_credential",
        "error",
        "model",
    )
    assert problem["pointer"] == "/nodes/1/data/credential_id"
    assert checked["plan"] is None
    assert saved["problems"] == checked["problems"]
    for response in (refused, not_run):
        assert (response.status_code, response.json()["problems"][0]["code"]) == (422, "unknown_credential")


async def test_a_drawing_from_elsewhere_goes_on_with_another_key_than_its_credentials(
    client_of_openai: tuple[Client, OpenAIServer],
) -> None:
    client, openai = client_of_openai
    openai.reply("hi")
    nobody = "01900000-0000-7000-8000-00000000dead"
    drawn = chat(nobody, api_key="sk-drawn", base_url=openai.url)

    checked = (await client.post("/workflows/check", json={"flow_data": drawn})).json()
    run = (await client.post("/runs", json={"flow_data": drawn, "input": "x"})).json()
    alone = (await client.post("/runs", json={"flow_data": chat(nobody), "input": "x"})).json()

    assert [(each["code"], each["severity"]) for each in checked["problems"]] == [
        ("unknown_credential", "warning")
    ]
    assert checked["plan"] is not None
    assert run["output"] == "hi"
    assert [each.headers["authorization"] for each in openai.requests] == ["Bearer sk-drawn"]
    assert (alone["status"], alone["error"]["code"]) == ("failed", "credential_not_found")


async def test_flt_51_a_credential_that_was_deleted_since_fails_the_step(client: Client) -> None:
    made = await kept(client)
    saved = (
        await client.post("/workflows", json={"name": "w", "flow_data": chat(made["id"], max_retries=0)})
    ).json()
    assert saved["problems"] == []
    first = await client.post(f"/workflows/{saved['id']}/runs", json={"input": "x"})
    assert first.json()["error"]["code"] != "credential_not_found"
    await client.delete(f"/credentials/{made['id']}")

    run = (await client.post(f"/workflows/{saved['id']}/runs", json={"input": "x"})).json()

    assert (run["status"], run["error"]["code"]) == ("failed", "credential_not_found")


@pytest.mark.parametrize(
    ("data", "hosts", "asked", "fine"),
    [
        ({"api_key": CANARY}, [], {}, True),
        ({"api_key": CANARY}, [], {"host": "evil.example"}, True),
        ({"api_key": CANARY}, ["api.openai.com"], {"usual": "api.openai.com"}, True),
        ({"api_key": CANARY}, ["api.openai.com"], {"usual": "api.openai.com", "host": "evil.example"}, False),
        ({"api_key": CANARY}, ["api.openai.com"], {}, False),
        ({"api_key": CANARY}, ["*.openai.com"], {"host": "EU.openai.com."}, True),
        ({"api_key": CANARY}, ["*.openai.com"], {"host": "openai.com.evil.example"}, False),
        ({"api_key": CANARY}, ["*.openai.com"], {"host": "evilopenai.com"}, False),
        ({"api_key": CANARY, "base_url": "https://a.example/v1"}, [], {"host": "a.example"}, True),
        ({"api_key": CANARY, "base_url": "https://a.example/v1"}, [], {"host": "evil.example"}, False),
        ({"api_key": CANARY, "base_url": "https://a.example/v1"}, [], {"usual": "api.openai.com"}, True),
        ({"password": CANARY, "host": "db.example"}, ["db.example"], {}, True),
        ({"password": CANARY, "base_url": "http://[oops"}, [], {"host": "a.example"}, True),
    ],
)
async def test_sec_22_a_credential_goes_only_where_it_is_for(
    tmp_path: Path, dsn: str, data: dict[str, str], hosts: list[str], asked: dict[str, str], fine: bool
) -> None:
    org, learned = UUID("00000000-0000-7000-8000-000000000001"), set[str]()
    async with assemble(Settings(data_dir=tmp_path, api_key=KEY), dsn, role="none") as flowserver:
        made = await flowserver.credentials.add(org, "c", data, hosts=hosts)
        door = RunCredentials(flowserver.credentials, Visitor(org, uuid4(), None, None, learned.add))

        if fine:
            assert await door.get(str(made.id), **asked) == data
            assert CANARY in learned
            return
        with pytest.raises(NodeError) as refused:
            await door.get(str(made.id), **asked)

    assert refused.value.code == "credential_host"
    assert CANARY not in refused.value.message


async def test_a_door_is_closed_to_other_organisations(tmp_path: Path, dsn: str) -> None:
    org = UUID("00000000-0000-7000-8000-000000000001")
    async with assemble(Settings(data_dir=tmp_path, api_key=KEY), dsn, role="none") as flowserver:
        made = await flowserver.credentials.add(org, "c", {"api_key": CANARY})
        door = RunCredentials(flowserver.credentials, Visitor(uuid4(), uuid4(), None, None))

        with pytest.raises(NodeError) as refused:
            await door.get(str(made.id))

    assert refused.value.code == "credential_not_found"


# The canary: no node that takes a credential leaves it anywhere


def _provider(type: str, **settings: Any) -> list[dict[str, Any]]:
    return [
        node("n", type, max_retries=0, **settings),
        node("agent", "Agent"),
        edge("n", "agent", "llm", "llm"),
    ]


def _step(type: str, **settings: Any) -> list[dict[str, Any]]:
    return [node("n", type, **settings)]


USES: dict[str, list[dict[str, Any]]] = {
    "OpenAIChat": _provider("OpenAIChat"),
    "OpenAICompatibleNode": _provider("OpenAICompatibleNode", model="m"),
    "AnthropicChat": _provider("AnthropicChat"),
    "GoogleChat": _provider("GoogleChat"),
    "OllamaChat": [
        node("n", "OllamaChat"),
        node("agent", "Agent"),
        edge("n", "agent", "llm", "llm"),
    ],
    "MCPTools": [
        node("model", "OpenAIChat", api_key="k", base_url="http://127.0.0.1:9"),
        node("n", "MCPTools", timeout=5),
        node("agent", "Agent"),
        edge("model", "agent", "llm", "llm"),
        edge("n", "agent", "tools", "tools"),
    ],
    "TavilySearch": [
        node("model", "OpenAIChat", api_key="k", base_url="http://127.0.0.1:9"),
        node("n", "TavilySearch"),
        node("agent", "Agent"),
        edge("model", "agent", "llm", "llm"),
        edge("n", "agent", "output", "tools"),
    ],
    "WebSearch": _step("WebSearch", query="x"),
    "PostgresQuery": _step("PostgresQuery", query="SELECT 1"),
    "EmailSend": _step("EmailSend", to="ada@example.com", timeout=1),
}
"""How each type that takes a credential is used; a new one needs a row here."""

IN_RETRIEVAL = {"CohereRerankerProvider", "OpenAIEmbeddingsProvider", "Reranker"}
"""Those whose row is in test_retrieval.py, as they need a collection."""


def _reflected(request: Request) -> Answer:
    """A server that tells everything that it was sent."""
    told = {"headers": dict(request.headers), "body": request.body.decode(errors="replace")}
    return Answer(
        401, json.dumps({"error": {"message": json.dumps(told), "type": "x", "code": 401}}).encode()
    )


@pytest.mark.parametrize("type", USES)
async def test_mt_07_a_secret_stands_in_no_event_row_log_or_error(
    tmp_path: Path, dsn: str, type: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "flowserver")
    settings = Settings(data_dir=tmp_path, api_key=KEY, outbound_allow=("127.0.0.1",))
    async with WebServer() as web, serving(create_app(settings, dsn)) as client:
        for path in (
            *("/chat/completions", "/v1/messages", "/api/chat", "/search", "/"),
            "/v1/models/gemini-3.5-flash:generateContent",
        ):
            web.on(path, _reflected)
        data = {
            "api_key": CANARY,
            "password": CANARY,
            "base_url": web.url(""),
            "host": "127.0.0.1",
            "port": web.port,
            "username": "me@example.com",
            "database": "db",
        }
        made = await kept(client, data=data)
        parts = json.loads(json.dumps(USES[type]))
        next(each for each in parts if each.get("id") == "n")["data"]["credential_id"] = made["id"]
        if type == "OllamaChat":
            parts[0]["data"]["base_url"] = web.url("")

        run = (await client.post("/runs", json={"flow_data": drawing(*parts), "input": "x"})).json()
        events = (await client.get(f"/runs/{run['id']}/events", params={"after": 0})).text

    assert run["status"] == "failed", run
    assert run["error"]["code"] not in ("missing_key", "bad_config", "credential_host"), run
    assert CANARY not in json.dumps(run) + events + caplog.text
    await _is_in_no_table(dsn)


def test_every_type_that_takes_a_credential_has_its_canary() -> None:
    types = registry.discover().types.values()
    taking = {
        each.name for each in types for info in fields(each.config) if extra(info.type, "credential", False)
    }

    assert taking == USES.keys() | IN_RETRIEVAL


async def _is_in_no_table(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        for (table,) in await (await conn.execute(query)).fetchall():
            rows = await (await conn.execute(f'SELECT t::text FROM "{table}" t')).fetchall()
            assert CANARY not in str(rows), table


async def test_what_a_run_learned_stands_in_none_of_its_traces(
    client_of_openai: tuple[Client, OpenAIServer], dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    client, openai = client_of_openai
    made = await kept(client, data={"api_key": CANARY, "base_url": openai.url})
    openai.reply(Reply(f"Incorrect API key provided: {CANARY}", status=401))

    run = (await client.post("/runs", json={"flow_data": chat(made["id"]), "input": "x"})).json()
    events = (await client.get(f"/runs/{run['id']}/events")).text

    assert run["status"] == "failed"
    assert "***" in run["error"]["message"]
    assert CANARY not in json.dumps(run) + events + caplog.text
    await _is_in_no_table(dsn)
