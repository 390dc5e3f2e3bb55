"""Python code of a workflow's author, run by Monty inside a confined process.

Monty is an interpreter of its own: there are no Python objects behind its values, it imports none of
Python's modules, and what it offers of `os` and `open` asks a host that always says no. It runs in a program
of its own below this process, which passes its limits and its empty environment on.
"""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

from flowserver.confined_child import Refused

MOST_PRINTED = 100_000
MOST_DEPTH = 50
_NAMES = ("output", "result")
"""Variables that may hold what the code gives."""


def work(request: dict[str, Any]) -> dict[str, Any]:
    import pydantic_monty as monty  # noqa: PLC0415  only where code may run

    limits = monty.ResourceLimits(
        max_feed_duration_secs=request["seconds"],
        max_memory=request["memory_bytes"],
        max_recursion_depth=200,
        max_suspensions=100,
        max_total_sleep_secs=0.0,
    )
    printed = monty.CollectString(MOST_PRINTED)
    try:
        with (
            monty.Monty(min_processes=1, max_processes=1, request_timeout=request["seconds"] + 2) as pool,
            pool.checkout(script_name="code", limits=limits) as session,
        ):
            last = session.feed_run(request["code"], inputs=request["values"], print_callback=printed)
            return {"output": plain(_named(session, monty, last)), "printed": printed.output}
    except monty.MontySyntaxError as wrong:
        raise Refused("bad_code", _told(wrong)) from None
    except monty.MontyRuntimeError as wrong:
        raise Refused(_code(wrong.exception()), _told(wrong)) from None
    except monty.MontyConversionError:
        raise Refused("bad_code", "it gives something that is not JSON") from None
    except monty.MontyCrashedError as wrong:
        timed_out = getattr(wrong, "timed_out", False)
        why = "took longer than it may" if timed_out else "ended its interpreter"
        raise Refused("timeout" if timed_out else "too_complex", f"the code {why}") from None


def _named(session: Any, monty: Any, last: Any) -> Any:
    """What a variable holds whose name says that it is the result; else the last expression's value."""
    for name in _NAMES:
        try:
            return session.feed_run(name)
        except monty.MontyRuntimeError as missing:
            if not isinstance(missing.exception(), NameError):
                raise
    return last


def _code(raised: BaseException) -> str:
    if isinstance(raised, TimeoutError):
        return "timeout"
    return "too_complex" if isinstance(raised, MemoryError | RecursionError) else "code_failed"


def _told(wrong: Any) -> str:
    frames = wrong.traceback()
    where = f"line {frames[-1].line}: " if frames else ""
    return f"{where}{wrong.display('type-msg')}"[:2000]


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON has it.

    Raises:
        Refused: It has no place there.
    """
    if depth > MOST_DEPTH:
        raise Refused("bad_output", f"its result is nested deeper than {MOST_DEPTH} levels")
    match value:
        case dict():
            return {_key(key): plain(item, depth + 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item, depth + 1) for item in value]
        case _:
            return _scalar(value)


def _scalar(value: Any) -> Any:
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if -(2**63) <= value < 2**64 else str(value)
        case float():
            return value if math.isfinite(value) else None
        case datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return value.total_seconds()
    raise Refused("bad_output", f"its result holds a {type(value).__name__}, which is not JSON")


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool | int | float):
        return json.dumps(key)
    raise Refused("bad_output", f"its result has a key of type {type(key).__name__}; allowed are texts")
