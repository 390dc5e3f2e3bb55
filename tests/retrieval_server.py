"""A server that speaks OpenAI's embeddings and Cohere's reranking, with true nearest neighbours.

    async with RetrievalServer() as server:
        OpenAIEmbeddings(base_url=server.url + "/v1", ...)
        ...
        assert server.texts == ["red apple"]

By itself: `python -m tests.retrieval_server`; its first line is its address.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
from typing import Any, Self

from tests import openai_server
from tests.embeddings import vector
from tests.openai_server import OpenAIServer
from tests.web_server import Reply, Request, WebServer, reply_json

DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
MOST_INPUTS = 2048


class RetrievalServer:
    """Refuses what the real ones refuse; `web.requests` holds what it was asked."""

    def __init__(self, *, key: str | None = None) -> None:
        self.key = key
        self.web = WebServer()
        self.texts: list[str] = []

    async def __aenter__(self) -> Self:
        await self.web.__aenter__()
        self.web.on("/v1/embeddings", self._embed)
        self.web.on("/v2/rerank", self._rerank)
        return self

    async def __aexit__(self, *given: object) -> None:
        await self.web.__aexit__(*given)

    @property
    def url(self) -> str:
        return self.web.url("")

    @property
    def openai(self) -> str:
        return self.url + "/v1"

    def _embed(self, request: Request) -> Reply:
        if refused := self._refused(request):
            return refused
        body = request.json
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if not texts or not all(isinstance(text, str) and text for text in texts):
            return _error(400, "'$.input' is invalid: it holds an empty text.")
        if len(texts) > MOST_INPUTS:
            return _error(400, f"Too many inputs: {len(texts)}.")
        if "dimensions" in body and body["model"] == "text-embedding-ada-002":
            return _error(400, "This model does not support specifying dimensions.")
        self.texts += texts
        size = body.get("dimensions") or DIMENSIONS.get(body["model"], 64)
        found = [vector(text, size) for text in texts]
        written: list[Any] = found
        if body.get("encoding_format") == "base64":
            written = [base64.b64encode(struct.pack(f"<{size}f", *each)).decode() for each in found]
        data = [{"object": "embedding", "index": at, "embedding": each} for at, each in enumerate(written)]
        tokens = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return reply_json({"object": "list", "data": data, "model": body["model"], "usage": usage})

    def _rerank(self, request: Request) -> Reply:
        """What shares the most words with the query, for its length, is the most relevant."""
        if refused := self._refused(request):
            return refused
        body = request.json
        asked = _words(body["query"])
        if not asked or not body["documents"]:
            return reply_json({"message": "invalid request: query and documents must not be empty"}, 400)
        scores = [len(asked & _words(text)) / max(len(asked | _words(text)), 1) for text in body["documents"]]
        best = sorted(range(len(scores)), key=lambda at: (-scores[at], at))[: body.get("top_n")]
        results = [{"index": at, "relevance_score": scores[at]} for at in best]
        return reply_json({"id": "r", "results": results, "meta": {"api_version": {"version": "2"}}})

    def _refused(self, request: Request) -> Reply | None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.key is not None and given != self.key:
            return _error(401, f"Incorrect API key provided: {given}.")
        return None


class ModelServer(OpenAIServer):
    """Chats, and makes vectors with true neighbours at the same address."""

    async def _respond(self, request: openai_server.Request, writer: asyncio.StreamWriter) -> None:
        if request.path != "/v1/embeddings":
            return await super()._respond(request, writer)
        texts = request.body["input"]
        size = request.body.get("dimensions") or DIMENSIONS[request.body["model"]]
        found = [vector(text, size) for text in texts]
        data = [{"object": "embedding", "index": at, "embedding": each} for at, each in enumerate(found)]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        answer = {"object": "list", "data": data, "model": request.body["model"], "usage": usage}
        content = json.dumps(answer).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        await writer.drain()


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _error(status: int, message: str) -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return reply_json({"error": error}, status)


async def _serve() -> None:
    async with RetrievalServer() as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
