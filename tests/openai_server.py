"""A server on 127.0.0.1 that speaks OpenAI's chat completions and says what a test tells it.

    async with OpenAIServer("hello", Reply(status=429, headers={"Retry-After": "1"})) as server:
        ChatOpenAI(base_url=server.url, api_key="sk-test")     # hears "hello", then is refused, then echoed
        ...
        assert server.chats[0]["messages"] == [...]

By itself: `python -m tests.openai_server --port 0 --delay 0.01 --reply "..."`; its first line is its URL.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from http import HTTPStatus
from typing import Any, Self, TypeAlias
from uuid import uuid4

Json: TypeAlias = dict[str, Any]

_MODELS = ("gpt-4o-mini", "gpt-4o")
_ARGUMENT_PIECE = 4
"""Characters of a tool call's arguments in one streamed chunk."""


class Fault(Enum):
    """How an answer goes wrong after its first `Reply.good` tokens; without streaming, in the middle."""

    RESET = "the connection is reset"
    CUT = "the answer ends early, as if it were complete"
    MALFORMED = "what follows is no JSON"
    EMPTY = "there is no body at all"


@dataclass(frozen=True)
class ToolCall:
    """The model wants a tool called; arguments given as text need not be JSON."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    id: str = ""

    @property
    def text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Reply:
    """What the model says, or how it fails."""

    text: str = ""
    tokens: Sequence[str] = ()
    """The streamed pieces, instead of the words of `text`."""
    tool_calls: Sequence[ToolCall] = ()
    status: int = 200
    """From 400 on, an error in OpenAI's words; `text`, if any, is its message."""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before each token."""
    gate: asyncio.Event | None = None
    """Holds everything after the first `good` tokens back until it is set."""
    fault: Fault | None = None
    good: int = 0
    finish_reason: str = ""

    @property
    def pieces(self) -> list[str]:
        return list(self.tokens) or re.findall(r"\s*\S+|\s+$", self.text)


@dataclass
class Request:
    """What a client sent; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Json
    hung_up: bool = False
    """The client went away before it had its answer."""


Answer: TypeAlias = Callable[[Json], "Reply | str"]


def echo(body: Json) -> Reply:
    """Say again what the user said last."""
    said = [message.get("content") for message in body["messages"] if message.get("role") == "user"]
    return Reply(f"echo: {_plain(said[-1]) if said else ''}")


class OpenAIServer:
    """Gives its replies in order, one for each chat request; after the last one it asks `answer`."""

    def __init__(self, *replies: Reply | str, answer: Answer = echo, models: Iterable[str] = _MODELS) -> None:
        self.requests: list[Request] = []
        self.answer = answer
        self.url = ""
        self._replies = deque(replies)
        self._models = tuple(models)
        self._changed = asyncio.Condition()
        self._talks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []

    @property
    def chats(self) -> list[Json]:
        """The bodies of the chat requests so far."""
        return [request.body for request in self.requests if request.path == "/v1/chat/completions"]

    def reply(self, *replies: Reply | str) -> None:
        """Give these too, after those that are still to be given."""
        self._replies.extend(replies)

    async def arrived(self, count: int, seconds: float = 5) -> list[Request]:
        """Wait until so many requests have come."""
        await self._wait(lambda: len(self.requests) >= count, seconds, f"{count} requests")
        return self.requests[:count]

    async def hung_up(self, count: int = 1, seconds: float = 5) -> None:
        """Wait until the clients of so many requests have gone away unanswered."""
        await self._wait(lambda: sum(r.hung_up for r in self.requests) >= count, seconds, f"{count} hang-ups")

    async def start(self, port: int = 0) -> None:
        """Listen; `async with` does it too."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def stop(self) -> None:
        """Hang up on everybody; raises what went wrong in the server itself, such as in `answer`."""
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        await self._server.wait_closed()
        if self._failures:
            raise self._failures[0]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            seen = [f"{request.method} {request.path}" for request in self.requests]
            raise AssertionError(f"waited {seconds} s for {what}; so far: {seen}") from None

    async def _note(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.ensure_future(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after the other."""
        next_byte = asyncio.ensure_future(_byte(reader))
        try:
            while first := await next_byte:
                request = await _read(first, reader)
                next_byte = asyncio.ensure_future(_byte(reader))
                self.requests.append(request)
                await self._note()
                await self._respond_unless_gone(request, writer, next_byte)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except Exception as failure:
            self._failures.append(failure)
        finally:
            next_byte.cancel()
            _hang_up(writer, rudely=True)

    async def _respond_unless_gone(
        self, request: Request, writer: asyncio.StreamWriter, next_byte: asyncio.Future[bytes]
    ) -> None:
        responding = asyncio.ensure_future(self._respond(request, writer))
        try:
            await asyncio.wait((responding, next_byte), return_when=asyncio.FIRST_COMPLETED)
            if not responding.done() and not next_byte.result():
                raise ConnectionResetError
            await responding
        except ConnectionError:
            request.hung_up = True
            await self._note()
            raise
        finally:
            responding.cancel()

    async def _respond(self, request: Request, writer: asyncio.StreamWriter) -> None:
        match request.method, request.path:
            case "GET", "/v1/models":
                await _send_json(writer, 200, _model_list(self._models))
            case "POST", "/v1/chat/completions" if "messages" in request.body:
                reply = self._replies.popleft() if self._replies else self.answer(request.body)
                await _say(Reply(reply) if isinstance(reply, str) else reply, request.body, writer)
            case "POST", "/v1/chat/completions":
                await _send_json(writer, 400, _error(400, "Missing required parameter: 'messages'."))
            case method, path:
                await _send_json(writer, 404, _error(404, f"Unknown request URL: {method} {path}."))


# What the model says, as OpenAI writes it


async def _say(reply: Reply, body: Json, writer: asyncio.StreamWriter) -> None:
    if reply.status >= 400:
        await _pause(reply)
        message = reply.text or _ERRORS.get(reply.status, _ERRORS[500])[2]
        await _send_json(writer, reply.status, _error(reply.status, message), reply.headers)
    elif reply.fault is Fault.EMPTY:
        await _send(writer, reply.status, b"", reply.headers)
    elif body.get("stream"):
        await _stream(reply, body, writer)
    else:
        await _answer(reply, body, writer)


async def _pause(reply: Reply) -> None:
    if reply.gate is not None:
        await reply.gate.wait()


async def _answer(reply: Reply, body: Json, writer: asyncio.StreamWriter) -> None:
    """The whole answer at once, after the time it would have taken to stream it."""
    await asyncio.sleep(reply.delay * len(reply.pieces))
    await _pause(reply)
    calls = [
        {"id": id, "type": "function", "function": {"name": call.name, "arguments": call.text}}
        for id, call in _numbered(reply.tool_calls)
    ]
    message: Json = {
        "role": "assistant",
        "content": "".join(reply.pieces) or None,
        "refusal": None,
        "annotations": [],
    }
    choice = {
        "index": 0,
        "message": {**message, "tool_calls": calls} if calls else message,
        "logprobs": None,
        "finish_reason": _finish_reason(reply),
    }
    whole = {**_envelope("chat.completion", body), "choices": [choice], "usage": _usage(reply, body)}
    content = json.dumps(whole).encode()
    half = content[: len(content) // 2]
    match reply.fault:
        case Fault.RESET | Fault.CUT:
            writer.write(
                _head(reply.status, {**_JSON, **reply.headers, "Content-Length": str(len(content))}) + half
            )
            await writer.drain()
            _hang_up(writer, rudely=reply.fault is Fault.RESET)
        case Fault.MALFORMED:
            await _send(writer, reply.status, half, {**_JSON, **reply.headers})
        case _:
            await _send(writer, reply.status, content, {**_JSON, **reply.headers})


async def _stream(reply: Reply, body: Json, writer: asyncio.StreamWriter) -> None:
    """The answer in server-sent events, one for each delta."""
    headers = {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"}
    writer.write(_head(reply.status, {**headers, **reply.headers}))
    first, *deltas, finish, usage = _events(reply, body)
    await _chunk(writer, first)
    for event in deltas[: reply.good]:
        await asyncio.sleep(reply.delay)
        await _chunk(writer, event)
    await _pause(reply)
    match reply.fault:
        case Fault.RESET:
            _hang_up(writer, rudely=True)
            return
        case Fault.CUT:
            await _chunk(writer, b"")
            return
        case Fault.MALFORMED:
            await _chunk(writer, _sse('{"id": "chatcmpl-'))
    for event in deltas[reply.good :]:
        await asyncio.sleep(reply.delay)
        await _chunk(writer, event)
    await _chunk(writer, finish + usage + _sse("[DONE]"))
    await _chunk(writer, b"")


def _events(reply: Reply, body: Json) -> Iterator[bytes]:
    """The role, the deltas, the reason of the end, and the usage, which is empty if nobody asked for it."""
    wants_usage = (body.get("stream_options") or {}).get("include_usage")
    envelope = {**_envelope("chat.completion.chunk", body), **({"usage": None} if wants_usage else {})}

    def event(delta: Json, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _sse(json.dumps({**envelope, "choices": [choice]}))

    yield event({"role": "assistant", "content": "", "refusal": None})
    yield from map(event, _deltas(reply))
    yield event({}, _finish_reason(reply))
    usage = {**envelope, "choices": [], "usage": _usage(reply, body)}
    yield _sse(json.dumps(usage)) if wants_usage else b""


def _deltas(reply: Reply) -> Iterator[Json]:
    for piece in reply.pieces:
        yield {"content": piece}
    for index, (id, call) in enumerate(_numbered(reply.tool_calls)):
        function = {"name": call.name, "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}
        for start in range(0, len(call.text), _ARGUMENT_PIECE):
            piece = call.text[start : start + _ARGUMENT_PIECE]
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _numbered(calls: Sequence[ToolCall]) -> list[tuple[str, ToolCall]]:
    return [(call.id or f"call_{number}", call) for number, call in enumerate(calls, 1)]


def _finish_reason(reply: Reply) -> str:
    return reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop")


def _envelope(kind: str, body: Json) -> Json:
    return {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": body.get("model", _MODELS[0]),
        "service_tier": "default",
        "system_fingerprint": "fp_test",
    }


def _usage(reply: Reply, body: Json) -> Json:
    """A token is a word here."""
    asked = sum(len(_plain(message.get("content")).split()) for message in body["messages"])
    said = len(list(_deltas(reply)))
    return {
        "prompt_tokens": asked,
        "completion_tokens": said,
        "total_tokens": asked + said,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _plain(content: Any) -> str:
    """The text of a message, which may come in parts, among them images."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content or ""


def _model_list(models: Iterable[str]) -> Json:
    data = [{"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "system"} for id in models]
    return {"object": "list", "data": data}


_ERRORS = {
    400: ("invalid_request_error", None, "We could not parse the JSON body of your request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-test."),
    404: (
        "invalid_request_error",
        "model_not_found",
        "The model does not exist or you do not have access to it.",
    ),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests per min (RPM)."),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
}


def _error(status: int, message: str) -> Json:
    type, code, _ = _ERRORS.get(status, _ERRORS[500])
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


# HTTP/1.1

_JSON = {"Content-Type": "application/json"}


async def _byte(reader: asyncio.StreamReader) -> bytes:
    """The next byte, or nothing if the client has gone."""
    try:
        return await reader.read(1)
    except ConnectionError:
        return b""


async def _read(first: bytes, reader: asyncio.StreamReader) -> Request:
    head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = line.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    decoded: Any = None
    with suppress(ValueError):
        decoded = json.loads(body)
    return Request(method, target.partition("?")[0], headers, decoded if isinstance(decoded, dict) else {})


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _send(
    writer: asyncio.StreamWriter, status: int, content: bytes, headers: Mapping[str, str]
) -> None:
    writer.write(_head(status, {**headers, "Content-Length": str(len(content))}) + content)
    await writer.drain()


async def _send_json(
    writer: asyncio.StreamWriter, status: int, value: Json, headers: Mapping[str, str] | None = None
) -> None:
    await _send(writer, status, json.dumps(value).encode(), {**_JSON, **(headers or {})})


async def _chunk(writer: asyncio.StreamWriter, content: bytes) -> None:
    """One piece of a body of unknown length; the empty one ends it."""
    writer.write(b"%x\r\n%b\r\n" % (len(content), content))
    await writer.drain()


def _sse(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


def _hang_up(writer: asyncio.StreamWriter, *, rudely: bool) -> None:
    if not rudely:
        writer.close()
        return
    if not writer.is_closing():
        # Without lingering, closing sends RST in place of FIN, and drops what was not yet sent.
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# By itself


async def _serve(port: int, delay: float, text: str | None) -> None:
    def answer(body: Json) -> Reply:
        return replace(echo(body) if text is None else Reply(text), delay=delay)

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    server = OpenAIServer(answer=answer)
    await server.start(port)
    print(server.url, flush=True)
    await ended.wait()
    await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.openai_server", description="A model that needs no key."
    )
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each token")
    parser.add_argument("--reply", help="what it always says; without it, it says what it was told")
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.port, arguments.delay, arguments.reply))


if __name__ == "__main__":
    main()
