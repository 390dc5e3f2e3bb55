"""Answers without what a model thinks aloud before them: `<think>…</think>` and the like."""

from __future__ import annotations

import re

_OPENS = re.compile(r"<(think|thinking|reasoning)>", re.IGNORECASE)
_LONGEST = len("</reasoning>")


class Unreasoned:
    """Takes the thoughts out of a text that comes in pieces."""

    def __init__(self) -> None:
        self._held = ""
        self._closes: str | None = None
        """The tag that ends the thought that is going on."""
        self._begins = True
        """Whether nothing but white space has been given since the beginning, or since a thought."""

    def feed(self, piece: str) -> str:
        """What of the text so far may be shown now."""
        self._held += piece
        shown = []
        while self._held:
            known = self._inside() if self._closes else self._outside()
            if known is None:
                break
            shown.append(known)
        return self._trimmed("".join(shown))

    def end(self) -> str:
        """What is left at the end: a thought that nothing ended is not shown."""
        rest, self._held = ("" if self._closes else self._held), ""
        return self._trimmed(rest)

    def _outside(self) -> str | None:
        if (found := _OPENS.search(self._held)) is not None:
            before, self._held = self._held[: found.start()], self._held[found.end() :]
            self._closes = f"</{found[1].lower()}>"
            return before
        tail = self._held.rfind("<", max(0, len(self._held) - _LONGEST))
        if tail == -1 or not _may_open(self._held[tail:]):
            whole, self._held = self._held, ""
            return whole
        before, self._held = self._held[:tail], self._held[tail:]
        return before or None

    def _inside(self) -> str | None:
        assert self._closes is not None
        at = self._held.lower().find(self._closes)
        if at == -1:
            self._held = self._held[-_LONGEST:]
            return None
        self._held = self._held[at + len(self._closes) :]
        self._closes, self._begins = None, True
        return ""

    def _trimmed(self, text: str) -> str:
        if self._begins:
            text = text.lstrip()
            self._begins = not text
        return text


def unreasoned(text: str) -> str:
    """A whole text without thoughts."""
    taker = Unreasoned()
    return taker.feed(text) + taker.end()


def _may_open(text: str) -> bool:
    text = text.lower()
    return any(f"<{tag}>".startswith(text) for tag in ("think", "thinking", "reasoning"))
