"""What a model is shown of a conversation that was had before: the end of it, and what led there in short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nodes.context import Memory, RunContext

MOST_UNSUMMED = 6
"""Messages that may be neither shown nor summed up before they are: each time takes a call of the model."""

_COVERS = "covers"


async def remembered(memory: Memory, ctx: RunContext) -> list[Any]:
    """The messages of earlier runs that a model is shown; a new summary is kept with this step."""
    kept = ctx.recall(memory)
    if memory.sum_up is None:
        return memory.trim(kept)
    from langchain_core.messages import SystemMessage  # noqa: PLC0415  loaded with the first conversation

    id = f"{memory.channel}:summary"
    old = next((each for each in kept if each.id == id), None)
    spoken = [each for each in kept if each.id != id]
    shown = memory.trim(spoken)
    left_out = spoken[: len(spoken) - len(shown)]
    text, new = (str(old.text), left_out) if old else ("", left_out)
    if old is not None:
        covered = [at for at, each in enumerate(left_out, 1) if each.id == old.additional_kwargs.get(_COVERS)]
        new = left_out[covered[0] :] if covered else left_out
    if len(new) > MOST_UNSUMMED or (new and not text):
        text = await memory.sum_up(text, new)
        summary = SystemMessage(text, id=id, additional_kwargs={_COVERS: new[-1].id})
        ctx.remember(memory, [summary])
        new = []
    told = [SystemMessage(f"Summary of the conversation so far:\n{text}")] if text else []
    return [*told, *new, *shown]


def last_exchanges(count: int) -> Callable[[Sequence[Any]], list[Any]]:
    """Chooses the last `count` questions of a person, and all that was said since the first of these."""

    def trim(messages: Sequence[Any]) -> list[Any]:
        asked = [at for at, each in enumerate(messages) if each.type == "human"]
        return list(messages[asked[-count] :] if len(asked) > count else messages)

    return trim


def within_tokens(most: int) -> Callable[[Sequence[Any]], list[Any]]:
    """Chooses as much of the end, from a question of a person on, as is about `most` tokens."""

    def trim(messages: Sequence[Any]) -> list[Any]:
        from langchain_core.messages import trim_messages  # noqa: PLC0415
        from langchain_core.messages.utils import count_tokens_approximately  # noqa: PLC0415

        chosen: list[Any] = trim_messages(
            list(messages),
            max_tokens=most,
            token_counter=count_tokens_approximately,
            strategy="last",
            start_on="human",
        )
        return chosen

    return trim
