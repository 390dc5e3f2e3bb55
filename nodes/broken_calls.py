"""Tool calls of a model whose arguments are no JSON object: each is answered with that, and never made.

LangChain leaves such a call out; or, in a stream, completes JSON that was cut off, and makes the call so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from nodes.tool_calls import refused

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, ToolMessage

MOST_SHOWN = 200
"""Characters of broken arguments that the model is shown."""


def mended(
    message: AIMessage, written: Sequence[Mapping[str, Any]] = ()
) -> tuple[AIMessage, list[ToolMessage]]:
    """Return `message` as it can be sent on, and an error for each call in it that cannot be made.

    `written` are its calls with `args` as text, as `Written` has them of an answer that was streamed.
    """
    calls = list(written) or [*message.tool_calls, *message.invalid_tool_calls]
    known = [_known(each.get("args")) for each in calls]
    if all(isinstance(each, dict) for each in known) and not message.invalid_tool_calls:
        return message, []
    taken = {each["id"] for each, arguments in zip(calls, known, strict=True) if isinstance(arguments, dict)}
    whole: list[Any] = []
    errors: list[ToolMessage] = []
    for each, arguments in zip(calls, known, strict=True):
        call = {
            "name": each.get("name") or "unknown",
            "args": arguments,
            "id": each.get("id"),
            "type": "tool_call",
        }
        if isinstance(arguments, str):
            # By its id the call is known to be answered; there are servers that give every call the same.
            call |= {"args": {}, "id": _free(each.get("id"), taken)}
            taken.add(call["id"])
            shown = str(each.get("args"))[:MOST_SHOWN]
            errors.append(refused(call, f"the arguments are {arguments}; they begin with: {shown}"))
        whole.append(call)
    return message.model_copy(update={"tool_calls": whole, "invalid_tool_calls": []}), errors


def is_object(arguments: Any) -> bool:
    """Whether the arguments of a call are an object, or nothing, which is an empty one."""
    return isinstance(_known(arguments), dict)


def _known(arguments: Any) -> dict[str, Any] | str:
    """The arguments of a call, or what is wrong with them."""
    try:
        # What was parsed already is looked at again: it is sent on as JSON, which has no NaN.
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, allow_nan=False)
        found = json.loads(text, strict=False, parse_constant=_no_constant) if text.strip() else {}
    except json.JSONDecodeError as wrong:
        return f"no JSON ({wrong.msg} at character {wrong.pos + 1} of {len(wrong.doc)})"
    except (ValueError, RecursionError):
        return "no JSON (a number is none, or they are nested too deeply)"
    if found is None:
        return {}
    return found if isinstance(found, dict) else "no JSON object"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _free(id: str | None, taken: set[Any]) -> str:
    return id if id and id not in taken else f"call_{uuid4().hex}"


@cache
def written_kind() -> Any:
    """The class `Written`; made late, as LangChain is loaded with the first agent."""
    from langchain_core.callbacks import AsyncCallbackHandler  # noqa: PLC0415

    class Written(AsyncCallbackHandler):
        """The tool calls of a model's last answer as they were streamed, before their JSON is completed."""

        run_inline = True

        def __init__(self) -> None:
            self._calls: dict[Any, dict[str, Any]] = {}

        def take(self) -> list[dict[str, Any]]:
            """Return the calls of the last answer, once."""
            calls, self._calls = list(self._calls.values()), {}
            return calls

        async def on_chat_model_start(self, *_: Any, **__: Any) -> None:
            self._calls = {}

        async def on_llm_new_token(self, *_: Any, chunk: Any = None, **__: Any) -> None:
            for piece in getattr(getattr(chunk, "message", None), "tool_call_chunks", ()):
                place = ("whole", len(self._calls)) if piece["index"] is None else piece["index"]
                call = self._calls.setdefault(place, {"name": None, "id": None, "args": ""})
                call["args"] += piece["args"] or ""
                for key in ("name", "id"):
                    call[key] = call[key] or piece[key]

    return Written
