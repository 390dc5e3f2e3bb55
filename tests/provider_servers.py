"""Answers of Anthropic, Google and Ollama on a `WebServer`: one sentence, as a whole or in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.web_server import Reply, Request, WebServer, reply_json


def anthropic(web: WebServer, pieces: Iterable[str], tool: dict[str, Any] | None = None) -> str:
    """Speak Anthropic's messages API; with `tool` the answer is a call of it. Returns the base URL."""
    said = list(pieces)

    def answer(request: Request) -> Reply:
        blocks: list[dict[str, Any]] = [{"type": "text", "text": "".join(said)}]
        if tool:
            blocks.append({"type": "tool_use", "id": "toolu_1", "name": tool["name"], "input": tool["input"]})
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": request.json["model"],
            "content": blocks,
            "stop_reason": "tool_use" if tool else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 7, "output_tokens": 3},
        }
        if not request.json.get("stream"):
            return reply_json(message)
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": message | {"content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        ]
        for piece in said:
            delta = {"type": "text_delta", "text": piece}
            events.append({"type": "content_block_delta", "index": 0, "delta": delta})
        events += [
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 3},
            },
            {"type": "message_stop"},
        ]
        return _sse([f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events])

    web.on("/v1/messages", answer)
    return web.url("")


def google(web: WebServer, pieces: Iterable[str], model: str = "gemini-3.5-flash") -> str:
    """Speak Gemini's API. Returns the base URL."""
    said = list(pieces)

    def part(text: str, *, last: bool) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
        if last:
            candidate["finishReason"] = "STOP"
        usage = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model}

    def whole(request: Request) -> Reply:
        return reply_json(part("".join(said), last=True))

    def stream(request: Request) -> Reply:
        parts = [part(piece, last=at == len(said)) for at, piece in enumerate(said, 1)]
        return _sse([f"data: {json.dumps(each)}\r\n\r\n" for each in parts])

    for version in ("v1", "v1beta"):
        web.on(f"/{version}/models/{model}:generateContent", whole)
        web.on(f"/{version}/models/{model}:streamGenerateContent", stream)
    return web.url("")


def ollama(web: WebServer, pieces: Iterable[str]) -> str:
    """Speak Ollama's chat API. Returns the base URL."""
    said = list(pieces)

    def answer(request: Request) -> Reply:
        model = request.json["model"]
        lines = [
            {
                "model": model,
                "created_at": "2026-01-01T00:00:00Z",
                "message": {"role": "assistant", "content": each},
            }
            for each in said
        ]
        end = {"done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}
        if not request.json.get("stream", True):
            message = {"role": "assistant", "content": "".join(said)}
            return reply_json(lines[0] | {"message": message, "done": True} | end)
        last = lines[0] | {"message": {"role": "assistant", "content": ""}, "done": True} | end
        body = [json.dumps(each | {"done": False}) + "\n" for each in lines] + [json.dumps(last) + "\n"]
        return Reply(body="".join(body).encode(), headers={"Content-Type": "application/x-ndjson"})

    web.on("/api/chat", answer)
    return web.url("")


def _sse(frames: Iterable[str]) -> Reply:
    return Reply(body="".join(frames).encode(), headers={"Content-Type": "text/event-stream"})
