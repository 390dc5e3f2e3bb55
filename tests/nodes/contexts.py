"""A context for steps that need little of the world."""

from __future__ import annotations

import dataclasses
from typing import Any, NoReturn

import httpx

from nodes.contract import ModelDefaults, RunContext


def context(**changes: Any) -> RunContext:
    """A context in which nothing outside may be touched, but for what `changes` gives."""

    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("this node may not do that")

    plain = RunContext(
        step="step",
        name="A step",
        run_id="run",
        input=None,
        trigger={},
        round=0,
        idempotency_key="key",
        http=httpx.AsyncClient(transport=httpx.MockTransport(refuse)),
        models=ModelDefaults(),
        emit=refuse,
        ask=refuse,
        recall=refuse,
        remember=refuse,
        set_variable=refuse,
        used=refuse,
    )
    return dataclasses.replace(plain, **changes)
