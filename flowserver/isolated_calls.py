"""Functions of nodes' modules, called inside a confined process: see `nodes.isolated`."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, get_type_hints

import msgspec

from flowserver.confined_child import Refused
from nodes.contract import NodeError


def work(request: dict[str, Any]) -> bytes:
    """The JSON of what the function gives: integers of any length are exact there, as in the arguments."""
    function = getattr(importlib.import_module(request["module"]), request["function"])
    hints = get_type_hints(function)
    given = msgspec.json.decode(request["arguments"])
    arguments = [
        msgspec.convert(each, hints.get(name, Any))
        for name, each in zip(inspect.signature(function).parameters, given, strict=True)
    ]
    try:
        return msgspec.json.encode(function(*arguments))
    except NodeError as failed:
        raise Refused(failed.code, failed.message) from None
    except (MemoryError, RecursionError):
        raise
    except Exception as exc:
        # Only the kind of error: its text may hold anything of what was given.
        raise Refused("step_failed", f"it failed inside ({type(exc).__name__})") from None
