"""What became of each step in a run, for its picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphs.picture import Mark, Status

_STATUS: Mapping[str, Status] = {
    "step.started": "running",
    "step.finished": "succeeded",
    "step.skipped": "skipped",
    "step.failed": "failed",
}


def marks_of(past: Iterable[Mapping[str, Any]], waiting: Iterable[str]) -> dict[str, Mark]:
    """The marks of a run's steps, from its events in order and the steps whose questions are open.

    A step that ran in one round and was skipped in another has run. What happens in other workflows that the
    run calls is left out.
    """
    found: dict[str, Mark] = {}
    for event in past:
        status = _STATUS.get(event["type"])
        if status is None or any(len(each) == 1 for each in event["within"] or ()):
            continue
        before = found.get(event["step"], Mark("skipped", 0))
        if status == "skipped" and before.times:
            continue
        if status == "failed" and event["will_retry"]:
            status = "running"
        found[event["step"]] = Mark(status, before.times + (event["type"] == "step.started"))
    return found | {id: Mark("waiting", found[id].times if id in found else 1) for id in waiting}
