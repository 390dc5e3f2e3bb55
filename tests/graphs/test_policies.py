"""What becomes of a step that fails, takes too long, or joins at the first arrow: through real graphs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.compile import Compiler
from graphs.policy import Retry
from graphs.runtime import StepFailed
from nodes import registry
from nodes.contract import NodeError, NodeType, Nothing, RunContext, ServerTrouble, port
from tests.graphs import node_types
from tests.graphs.runs import Recording, run
from tests.server import drawing, edge, node

TRIES: dict[str, list[Any]] = {}
"""What the next attempts of a step come to: an exception, a value, or for ever."""


class Came(msgspec.Struct, frozen=True):
    input: Annotated[tuple[Any, ...], port(many=True)] = ()


class Gives(msgspec.Struct, frozen=True):
    output: Any


async def tries(config: Nothing, inputs: Came, ctx: RunContext) -> Gives:
    what = TRIES[ctx.step].pop(0)
    if isinstance(what, Exception):
        raise what
    if what is asyncio.Event:
        await asyncio.Event().wait()
    return Gives(what)


GREATER = {"operation": "greater", "right": 3}

TRYING = NodeType.step(tries, "Tries", "Tries", effect=True)
MODULE = type(node_types)("tries")
MODULE.TRYING = TRYING  # type: ignore[attr-defined]
TYPES = registry.collect([*registry.modules("nodes"), node_types, MODULE])


def answered(status: int, **headers: str) -> Exception:
    """An error as the clients of model providers raise it."""
    failed = RuntimeError(f"status {status}")
    failed.response = httpx.Response(status, headers=headers)  # type: ignore[attr-defined]
    return failed


async def trying(*outcomes: Any, **policy: Any) -> Recording:
    TRIES["try"] = list(outcomes)
    flow = drawing(
        node("start", "StartNode"),
        node("try", "Tries", **policy),
        node("good", "EndNode"),
        edge("start", "try"),
        edge("try", "good"),
        *([node("bad", "EndNode"), edge("try", "bad", "error")] if policy.get("on_error") == "port" else []),
    )
    return await run(Compiler(TYPES).compile(flow))


async def test_a_step_is_tried_again_until_it_succeeds() -> None:
    recording = await trying(
        NodeError("one"), RuntimeError("two"), "three", retry={"attempts": 3, "delay": 0}
    )

    assert recording.told == [
        ("started", "start"),
        ("finished", "start"),
        ("started", "try"),
        ("retried", "try"),
        ("started", "try"),
        ("retried", "try"),
        ("started", "try"),
        ("finished", "try"),
        ("started", "good"),
        ("finished", "good"),
    ]
    assert recording.output == "three"


@pytest.mark.parametrize(
    "failure",
    [
        NodeError("wrong for ever", is_final=True),
        NodeError("cannot be read", code="bad_input"),
        answered(401),
        answered(422),
    ],
)
async def test_what_would_only_fail_again_is_not_tried_again(failure: Exception) -> None:
    with pytest.raises(StepFailed):
        await trying(failure, "never", retry={"attempts": 5, "delay": 0})

    assert TRIES["try"] == ["never"]


@pytest.mark.parametrize("failure", [answered(429), answered(503), TimeoutError(), NodeError("busy")])
async def test_what_may_pass_is_tried_again(failure: Exception) -> None:
    recording = await trying(failure, "well", retry={"attempts": 2, "delay": 0})

    assert recording.output == "well"


@pytest.mark.parametrize(
    "failure", [answered(429, **{"Retry-After": "0.0"}), answered(429, **{"Retry-After": "1"})]
)
async def test_the_other_side_may_ask_for_a_longer_pause(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("graphs.acting.asyncio.sleep", sleep)
    await trying(failure, "well", retry={"attempts": 2, "delay": 0.25, "jitter": False})

    assert slept == ([0.25] if "0.0" in str(failure.response.headers) else [1.0])  # type: ignore[attr-defined]


async def test_an_attempt_that_takes_too_long_is_ended_and_the_next_one_counts() -> None:
    recording = await trying(asyncio.Event, "in time", timeout=0.05, retry={"attempts": 2, "delay": 0})

    assert recording.output == "in time"
    with pytest.raises(StepFailed, match="it did not end within"):
        await trying(asyncio.Event, timeout=0.05)


async def test_a_failure_goes_on_by_the_error_port_with_what_happened() -> None:
    recording = await trying(NodeError("no luck", code="luck"), on_error="port")

    assert recording.output == {"code": "luck", "step": "try", "message": "no luck"}
    assert recording.those("skipped") == ["good"]
    assert recording.because["good"]["message"] == "'try' failed"


async def test_a_success_leaves_the_error_port_dead() -> None:
    recording = await trying("well", on_error="port")

    assert recording.output == "well"
    assert recording.because["bad"]["message"] == "'try' did not fail"


async def test_a_failure_can_become_a_value() -> None:
    recording = await trying(NodeError("no"), on_error="default", default={"nothing": True})

    assert recording.output == {"nothing": True}


@pytest.mark.parametrize(
    ("router", "way", "said"),
    [
        (node("router", "ConditionNode", condition=GREATER, on_error="default", default="false_output"),
         "false_output", {"output": "many", "result": False}),
        (node("router", "Switch", cases=[{"port": "more", "condition": GREATER}], on_error="default",
              default="more"), "more", {"output": "many", "case": "more"}),
        (node("router", "Loop", condition=GREATER, on_error="default", default="done"),
         "done", {"output": "many", "round": 0}),
    ],
)  # fmt: skip
async def test_a_router_that_fails_passes_on_what_arrived_by_its_default(
    router: dict[str, Any], way: str, said: dict[str, Any]
) -> None:
    flow = drawing(
        node("start", "StartNode"),
        router,
        node("text", "Echo", uses=["{{ router }}", f"{{{{ router.{list(said)[1]} }}}}"]),
        node("back", "Template", template="x"),
        edge("start", "router"),
        edge("router", "text", way),
        *([edge("router", "back", "body"), edge("back", "router")] if way == "done" else []),
    )

    recording = await run(Compiler(TYPES).compile(flow), "many")

    assert recording.output["inputs"] == ["many"]
    assert recording.output["uses"] == list(said.values())
    assert len(recording.those("failed")) == 1


async def test_a_step_that_joins_any_takes_the_first_live_arrow_and_leaves_the_rest() -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("if", "ConditionNode", value1="{{ input }}", operation="equal", value2="yes"),
        node("dead", "Template", template="dead"),
        node("slow", "FatedEffect"),
        node("quick", "Template", template="quick"),
        node("join", "Merge", join="any"),
        edge("start", "if"),
        edge("if", "dead", "true"),
        edge("start", "slow"),
        edge("start", "quick"),
        edge("dead", "join"),
        edge("slow", "join"),
        edge("quick", "join"),
    )

    recording = await run(Compiler(TYPES).compile(flow), "no")

    assert recording.output == ["quick"]
    assert recording.those("started").count("join") == 1
    assert "slow" in recording.those("finished"), "it is not needed, but it is not cut off either"


@given(
    retry=st.builds(
        Retry,
        delay=st.floats(0, 3600),
        factor=st.floats(1, 10),
        max_delay=st.floats(0, 3600),
        jitter=st.booleans(),
    ),
    attempt=st.integers(2, 20),
    chance=st.floats(0, 1),
)
def test_a_pause_lies_between_half_of_the_delay_and_the_longest(
    retry: Retry, attempt: int, chance: float
) -> None:
    whole = min(retry.delay * retry.factor ** (attempt - 2), retry.max_delay)

    pause = retry.before(attempt, chance, None)

    assert whole / 2 <= pause <= whole <= retry.max_delay


class Unwritten(Recording):
    """A reporter whose journal cannot be written."""

    async def written(self) -> None:
        raise ConnectionError("the database is away")


async def test_a_step_whose_beginning_cannot_be_written_down_has_not_failed_and_is_not_tried_again() -> None:
    """Else a run would end as failed whenever the database goes away at the wrong moment."""
    retry = {"attempts": 3, "delay": 0.001}
    call = node("call", "HttpRequest", url="https://example.com", retry=retry)
    compiled = Compiler(registry.discover()).compile(
        drawing(node("start", "StartNode"), call, edge("start", "call"))
    )
    told = Unwritten()

    with pytest.raises(ServerTrouble) as raised:
        await run(compiled, recording=told)

    assert isinstance(raised.value.__cause__, ConnectionError)
    assert told.those("started").count("call") == 1
    assert told.those("failed") + told.those("retried") == []
