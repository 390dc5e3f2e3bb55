"""What can be wrong with a saved workflow, in words its author can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

MOST = 1_000
MOST_HINTS = 50
MOST_SAID = 1_500
"""The most characters of a message."""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mistake in a drawing."""

    code: str
    """Stable, for programs: `unknown_port`."""
    severity: Literal["error", "warning"]
    where: str
    """The id of the node or edge, for the editor; empty when it concerns the whole drawing."""
    pointer: str
    """JSON pointer (RFC 6901) into `flow_data`."""
    message: str
    """For people: what was found and what is allowed."""
    hint: str | None = None

    def __str__(self) -> str:
        place = self.where or "workflow"
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.severity}: {place}: {self.message}{hint} [{self.code}] at {self.pointer or '/'}"


class InvalidWorkflow(Exception):
    """The saved workflow cannot be compiled. Carries every problem found, not just the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Problems:
    """Collects what is found on the way; nothing that is found stops the search for more."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.errors = 0
        """How many errors there are, also of those that are not kept."""

    def error(self, code: str, where: str, pointer: str, message: str, hint: str | None = None) -> None:
        self._add(Problem(code, "error", where, pointer, _short(message), hint))

    def warning(self, code: str, where: str, pointer: str, message: str, hint: str | None = None) -> None:
        self._add(Problem(code, "warning", where, pointer, _short(message), hint))

    def _add(self, problem: Problem) -> None:
        self.errors += problem.severity == "error"
        if len(self.found) < MOST:
            self.found.append(problem)
        elif len(self.found) == MOST or problem.severity == "error":
            message = f"there are more than {MOST} problems; the rest is not shown"
            self.found[MOST:] = [Problem("too_many_problems", problem.severity, "", "", message)]

    def did_you_mean(self, found: str, known: Iterable[str]) -> str | None:
        """A hint that names the closest of `known`, if one is close."""
        # Comparing takes milliseconds with many names; a drawing with thousands of mistakes needs no hints.
        return did_you_mean(found, known) if len(self.found) < MOST_HINTS else None


def _short(message: str) -> str:
    """`message`, or its start: whatever a drawing holds, its check can be read."""
    return message if len(message) <= MOST_SAID else f"{message[:MOST_SAID]}…"


def pointer(*parts: str | int) -> str:
    """Join `parts` to a JSON pointer."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def did_you_mean(found: str, known: Iterable[str]) -> str | None:
    """A hint that names the closest of `known`, if one is close."""
    near = nearest(found, known)
    return f"did you mean {near!r}?" if near else None


def nearest(found: str, known: Iterable[str]) -> str | None:
    """The closest of `known`, if one is close."""
    lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(found.lower(), lower, n=1, cutoff=0.7)
    return lower[near[0]] if near else None


def listed(names: Iterable[str]) -> str:
    """`names` as they read in a message; at most twenty."""
    every = list(names)
    more = f" and {len(every) - 20} more" if len(every) > 20 else ""
    return ", ".join(every[:20]) + more if every else "none"
