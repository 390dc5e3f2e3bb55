"""What a wait asks of the run: nothing when it is short, else a pause that nobody need answer."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from nodes.contract import NodeError
from nodes.flow.wait import Config, Inputs, Outputs, Unit, run
from nodes.mistakes import Mistakes
from nodes.question import EXPIRED, Question
from tests.nodes.contexts import context


async def waited(config: Config, answer: Any = EXPIRED, input: Any = None) -> tuple[Outputs, list[Question]]:
    asked: list[Question] = []

    def ask(question: Question) -> Any:
        asked.append(question)
        return answer

    return await run(config, Inputs(input), context(ask=ask)), asked


@pytest.mark.parametrize(
    ("amount", "unit", "seconds"),
    [(6, "seconds", 6), (0.5, "minutes", 30), (2, "hours", 7200), (365, "days", 31_536_000)],
)
async def test_a_long_wait_is_a_pause_of_so_many_seconds(amount: float, unit: Unit, seconds: float) -> None:
    made, asked = await waited(Config(amount, unit), input=[1])

    assert made == Outputs([1], False)
    assert asked == [Question({"seconds": seconds}, seconds=seconds, pause=True)]


async def test_a_short_wait_asks_nothing_and_takes_its_time() -> None:
    began = time.monotonic()

    made, asked = await waited(Config(0.02))

    assert (made, asked) == (Outputs(None, False), [])
    assert time.monotonic() - began >= 0.02


@pytest.mark.parametrize(
    ("until", "moment"),
    [
        ("2030-01-31", "2030-01-31T00:00:00+00:00"),
        (" 2030-01-31T12:00:00+02:00 ", "2030-01-31T10:00:00+00:00"),
        ("2030-01-31T12:00:00Z", "2030-01-31T12:00:00+00:00"),
        ("1970-01-01", "1970-01-01T00:00:00+00:00"),
        ("0001-01-01T00:00:00+14:00", "1970-01-01T00:00:00+00:00"),
        ("9000-12-31", "9000-12-31T00:00:00+00:00"),
    ],
)
async def test_a_wait_until_a_moment_is_a_pause_until_then_in_utc(until: str, moment: str) -> None:
    _, asked = await waited(Config(until=until))

    assert asked == [Question({"until": moment}, until=moment, pause=True)]


@pytest.mark.parametrize("until", ["", "tomorrow", "9001-01-01", "9999-12-31T23:59:59-14:00", "2030-13-01"])
async def test_what_is_no_moment_fails_the_step(until: str) -> None:
    config = msgspec.structs.replace(Config(until="2030-01-01"))
    msgspec.structs.force_setattr(config, "until", until)

    with pytest.raises(NodeError, match=r"^'until' is "):
        await waited(config)


@pytest.mark.parametrize("answer", [None, "go", "expired", {"a": 1}, []])
async def test_any_answer_ends_it_early(answer: Any) -> None:
    made, _ = await waited(Config(60), answer, "kept")

    assert made == Outputs("kept", True)


@pytest.mark.parametrize("input", [None, "", "{{ x }}", {"a": [None] * 1000}, 10**400, "\ud800"])
async def test_what_arrives_is_passed_on_as_it_is(input: Any) -> None:
    made, _ = await waited(Config(60), input=input)

    assert made.output is input


@pytest.mark.parametrize(
    "given", [(), (1, "seconds", "2030-01-01"), (9, "days", "2030-01-01"), (366, "days")]
)
def test_what_is_no_wait_is_refused_when_it_is_made(given: tuple[Any, ...]) -> None:
    with pytest.raises(Mistakes):
        Config(*given)
