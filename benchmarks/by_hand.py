"""The drawings of `benchmarks/server.py` written by hand: Litestar, LangGraph and its Postgres saver.

    .venv/bin/python -m benchmarks.by_hand DSN FAST_MODEL_URL SLOW_MODEL_URL

One pool, one saver for all runs, durability `exit`, ChatOpenAI, server-sent events from LangGraph's stream;
no rows of runs, no journal, no keys, no second server.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import msgspec
import uvicorn
import uvloop
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt
from litestar import Litestar, post
from litestar.params import JSONBody
from litestar.response import Stream
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool


class Given(msgspec.Struct):
    input: str
    thread_id: str | None = None


class Echo(TypedDict, total=False):
    input: str
    text: str
    output: str


class Chat(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]


class Asked(TypedDict, total=False):
    input: str
    answer: Any


def echo() -> StateGraph[Any]:
    graph = StateGraph(Echo)
    graph.add_node("start", lambda state: {"input": state["input"]})
    graph.add_node("template", lambda state: {"text": f"You said {state['input']}."})
    graph.add_node("end", lambda state: {"output": state["text"]})
    graph.add_edge(START, "start").add_edge("start", "template").add_edge("template", "end")
    return graph.add_edge("end", END)


def chat(url: str) -> StateGraph[Any]:
    model = ChatOpenAI(model="gpt-4o-mini", base_url=url, api_key="sk-none", stream_usage=True)  # type: ignore
    system = SystemMessage("Be kind.")

    async def answer(state: Chat) -> dict[str, Any]:
        return {"messages": [await model.ainvoke([system, *state["messages"]])]}

    return StateGraph(Chat).add_node("answer", answer).add_edge(START, "answer").add_edge("answer", END)


def question() -> StateGraph[Any]:
    graph = StateGraph(Asked).add_node("ask", lambda state: {"answer": interrupt({"question": "Go on?"})})
    return graph.add_edge(START, "ask").add_edge("ask", END)


GRAPHS: dict[str, Any] = {}


def make_app(dsn: str, fast: str, slow: str) -> Litestar:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        pool = AsyncConnectionPool(
            dsn,
            min_size=2,
            max_size=16,
            open=False,
            kwargs={"autocommit": True, "row_factory": dict_row, "prepare_threshold": 0},
            connection_class=AsyncConnection[DictRow],
        )
        async with pool:
            saver = AsyncPostgresSaver(pool)
            await saver.setup()
            drawn = {"echo": echo(), "fast": chat(fast), "slow": chat(slow), "ask": question()}
            GRAPHS.update({name: graph.compile(checkpointer=saver) for name, graph in drawn.items()})
            yield

    handlers = [run_echo, run_chat, stream_chat, run_ask, resume]
    return Litestar(handlers, lifespan=[lifespan], openapi_config=None, logging_config=None)


@post("/echo", status_code=200)
async def run_echo(data: JSONBody[Given]) -> dict[str, Any]:
    state = await GRAPHS["echo"].ainvoke({"input": data.input}, _config(data), durability="exit")
    return {"output": state["output"]}


@post("/chat", status_code=200)
async def run_chat(data: JSONBody[Given]) -> dict[str, Any]:
    given = {"messages": [HumanMessage(data.input)]}
    state = await GRAPHS["fast"].ainvoke(given, _config(data), durability="exit")
    return {"output": state["messages"][-1].content}


@post("/stream", status_code=200)
async def stream_chat(data: JSONBody[Given]) -> Stream:
    async def frames() -> AsyncGenerator[bytes]:
        given = {"messages": [HumanMessage(data.input)]}
        parts = GRAPHS["slow"].astream(given, _config(data), stream_mode="messages", durability="exit")
        async for message, _ in parts:
            yield b"event: text\ndata: " + msgspec.json.encode({"text": message.content}) + b"\n\n"
        yield b"event: run.succeeded\ndata: {}\n\n"

    return Stream(frames(), media_type="text/event-stream")


@post("/ask", status_code=202)
async def run_ask(data: JSONBody[Given]) -> dict[str, Any]:
    config = _config(data)
    await GRAPHS["ask"].ainvoke({"input": data.input}, config, durability="exit")
    return {"thread_id": config["configurable"]["thread_id"]}


@post("/resume", status_code=200)
async def resume(data: JSONBody[Given]) -> dict[str, Any]:
    state = await GRAPHS["ask"].ainvoke(Command(resume=data.input), _config(data), durability="exit")
    return {"output": state["answer"]}


def _config(data: Given) -> dict[str, Any]:
    return {"configurable": {"thread_id": data.thread_id or str(uuid4())}}


def main() -> None:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    server = uvicorn.Server(uvicorn.Config(make_app(*sys.argv[1:4]), log_config=None, access_log=False))
    print(f"by_hand listens on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets=[listening]))


if __name__ == "__main__":
    main()
