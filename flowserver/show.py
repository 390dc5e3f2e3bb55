"""Events and values as a person reads them in a terminal."""

from __future__ import annotations

from typing import Any

import msgspec

from flowserver.events import Event
from graphs.summary import PlanSummary


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
            return " / ".join(map(_of_question, data["questions"]))
        case _ if "step" in data:
            return f"{_place(data)}  {_of_step(type, data)}".rstrip()
        case _:
            return ""


def _of_question(question: dict[str, Any]) -> str:
    if question.get("pause"):
        return f"{question['step']}: until {question['deadline']}"
    return f"{question['step']}: {question['payload'].get('question')}"


def _place(data: dict[str, Any]) -> str:
    """A step with the rounds, items and workflows that it is in: `loop#2 each[0] step`."""
    around = []
    for each in data.get("within", ()):
        number = f"#{each['round']}" if "round" in each else f"[{each['item']}]" if "item" in each else ""
        around.append(f"{each['step']}{number}")
    return " ".join([*around, data["step"]])


def _of_step(type: str, data: dict[str, Any]) -> str:
    match type:
        case "text":
            return repr(data["text"])
        case "step.started":
            return str(data["type"])
        case "step.finished":
            outputs = shown(data["outputs"])
            return f"{data['ms']} ms  {outputs[:100]}{'…' if len(outputs) > 100 else ''}"
        case "item.finished":
            return f"item {data['item']} {data['status']}"
        case "step.failed" if data["will_retry"]:
            return f"{data['error']['message']}; it is tried again"
        case "step.skipped":
            return str(data["because"]["message"])
        case _:
            return str(data.get("error", {}).get("message", ""))


def plan_in_words(plan: PlanSummary) -> str:
    """What a plan will do, a line for each thing worth knowing."""
    calls = "as many as a map has items" if plan.model_calls is None else str(plan.model_calls)
    lines = [
        f"order:       {', '.join(plan.order)}",
        *(f"parallel:    {', '.join(wave)}" for wave in plan.parallel if len(wave) > 1),
        *(
            f"loop:        {', '.join(loop.steps)}; begins with {loop.first}, "
            f"at most {loop.max_rounds} rounds, then {', '.join(loop.exits) or 'nothing'}"
            for loop in plan.loops
        ),
        *(
            f"map:         {map.step} runs {', '.join(map.steps) or 'nothing'} once per item"
            for map in plan.maps
        ),
        f"supersteps:  {', '.join(plan.supersteps) or 'none of its own: nothing acts outside'}",
        f"model calls: {calls} at most",
        f"hosts:       {', '.join(plan.hosts) or 'none known before it runs'}",
        *([f"credentials: {', '.join(plan.credentials)}"] if plan.credentials else []),
        f"durability:  {plan.durability}",
    ]
    return "\n".join(lines)
