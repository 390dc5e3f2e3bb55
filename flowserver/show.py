"""Events and values as a person reads them in a terminal."""

from __future__ import annotations

from typing import Any

import msgspec

from flowserver.events import Event


def show(event: Event) -> str:
    """One event on one line."""
    return f"{event.seq:>4}  {event.type:<14} {_words(event.type, event.data)}".rstrip()


def shown(value: Any) -> str:
    """A value: texts as they are, a question's text alone, everything else as JSON."""
    if isinstance(value, dict) and set(value) == {"question", "input"}:
        below = f"\n{shown(value['input'])}" if value["input"] not in (None, "") else ""
        return f"{value['question']}{below}"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _words(type: str, data: dict[str, Any]) -> str:
    match type:
        case "run.created":
            return str(data["version"])[:12]
        case "run.started":
            return f"attempt {data['attempt']}"
        case "run.succeeded":
            return shown(data["output"])
        case "run.failed":
            return f"{data['error'].get('step', '')} {data['error']['message']}".strip()
        case "run.waiting":
            return " / ".join(
                f"{each['step']}: {each['payload'].get('question')}" for each in data["questions"]
            )
        case _ if "step" in data:
            return f"{data['step']}  {_of_step(type, data)}"
        case _:
            return ""


def _of_step(type: str, data: dict[str, Any]) -> str:
    match type:
        case "text":
            return repr(data["text"])
        case "step.started":
            return str(data["type"])
        case "step.finished":
            outputs = shown(data["outputs"])
            return f"{data['ms']} ms  {outputs[:100]}{'…' if len(outputs) > 100 else ''}"
        case "step.skipped":
            return str(data["because"]["message"])
        case _:
            return str(data.get("error", {}).get("message", ""))
