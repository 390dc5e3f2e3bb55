"""Drives the steps of a workflow, or of one item of a map: what is decided, what may run, what is skipped.

Dead-path elimination (DESIGN §6): a step waits until every arrow to it is decided; it runs if one is live,
and is skipped if none is. One walk over the steps in topological order decides all that can be decided, as
each step comes after those that lead to it. A loop is walked again for each round.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import replace
from heapq import heappop, heappush
from typing import Any

from langchain_core.runnables.config import var_child_runnable_config

from graphs.acting import Acting, Arrived
from graphs.plan import LIMIT, Loop, Region, Step
from graphs.runtime import LimitReached, Place, Run, StepFailed, Within, Witness
from graphs.standing import Standing, Work
from graphs.state import (
    KEPT,
    State,
    carried,
    channel,
    is_live,
    items,
    result,
    results,
    rounds,
    why_dead,
)
from graphs.values import UnsafeValue, clean, clean_aside
from nodes.contract import Call, Items

BREATH = 64
"""After so many steps in a row others of the process get their turn."""


class Frame(Standing):
    """Some steps of a run on their way: all that no map runs, or those of one item of a map."""

    def __init__(
        self, work: Work, values: State, run: Run, owner: str | None = None, after: str | None = None
    ) -> None:
        """`values` are the state and that of the steps around it."""
        super().__init__(work, values, run, owner)
        self.ready: list[str] = []
        """Steps that may run now, and have a superstep of their own."""
        self.due: list[tuple[str, int]] = []
        """Items of maps that may run now."""
        self.after = after
        """The step that was all that could run; `None` where more may have changed than it can change."""
        self._breath = 0
        if run.witness is not None:  # what another process did of an item
            run.witness.told.update(id for id in self.plan.steps if channel(id) in values)

    async def advance(self) -> None:
        """Decide all that can be decided here; what remains is in `ready` and `due`, or nothing is."""
        self.ready, self.due = [], []
        if self.after is None:
            await self._walk(self.region, [])
        else:
            await self._walk_on(self.after)
        self.after = self.ready[0] if len(self.ready) == 1 and not self.due else None
        acting = [id for id in self.ready if not self.plan.steps[id].asks]
        if acting or self.due:  # a question stops everything: it comes when nothing else can go on
            self.ready = acting

    async def finish(self) -> None:
        """Run everything to the end, here and now."""
        while True:
            await self.advance()
            if not self.ready and not self.due:
                return
            if len(self.ready) == 1 and not self.due:
                await self.act(self.ready[0])
                continue
            async with _together() as start:
                for id in self.ready:
                    start(self.act(id))
                done = [start(self.item(map, index)) for map, index in self.due]
            for (map, _), task in zip(self.due, done, strict=True):
                entry, kept = task.result()
                self.values[results(map)] = [*self.values[results(map)], entry]
                self.keep(kept)

    async def act(self, id: str) -> None:
        """Run a step that is `ready`."""
        step, path = self.plan.steps[id], self.path(id)
        arrived, _ = self.arrived(step, path, self.undecided(step.sources, id))
        await self._act(step, path, arrived)

    async def item(self, map: str, index: int) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        """Run an item that is `due`: its result, and what it adds to variables and conversations."""
        started = self.values[items(map)]
        place, reporter = self.place(map, started["at"]), self.run.reporter
        gate = self.run.gates.setdefault(place.key, asyncio.Semaphore(started["max_concurrency"]))
        async with gate:
            if place.key in self.run.stopped:
                return {"index": index, "stopped": True}, {}
            given = {"outputs": {"item": started["values"][index], "index": index}}
            within: Within = (*place.within, ("item", map, index))
            witness = Witness(reporter, within)
            outer = {**self.values, channel(map): given}
            run = replace(self.run, within=within, outer=outer, reporter=witness, witness=witness)
            try:
                values, kept = await self._inside(map, run)
            except LimitReached:
                raise
            except StepFailed as exc:
                if started["on_error"] == "stop":
                    self.run.stopped.add(place.key)
                self._tell_left_out(map, index, run, exc)
                status = "dropped" if started["on_error"] == "drop" else "failed"
                reporter.item(place, index, status, exc.error, goes_on=started["on_error"] != "stop")
                return {"index": index, "error": clean(exc.error)}, {}
            live = [arc for arc in self.plan.maps[map].returns if is_live(arc, values)]
            reporter.item(place, index, "succeeded", None)
            value = carried(live[0], values, self.plan.steps) if live else None
            return {"index": index, "value": value}, kept

    # One walk

    async def _walk(self, region: Region, path: list[int]) -> set[str]:
        """Decide what can be decided of `region` in this round; return the steps that remain."""
        undecided: set[str] = set()
        for item in region.items:
            if not await self._look_at(item, path, undecided):
                undecided.update(item.steps if isinstance(item, Loop) else (item,))
        return undecided

    async def _walk_on(self, acted: str) -> None:
        """Decide what can be decided since `acted` has run: what waits for it, then what waits for that."""
        way, items = self.work.schedule.ways[self.owner], self.region.items
        ahead, seen = [way.places[acted]], -1
        while ahead:
            place = heappop(ahead)
            item = items[place]
            if place != seen and await self._look_at(item, [], self.undecided(way.sources[place], item)):
                for reader in way.readers[place]:  # they come later, so those named twice follow each other
                    heappush(ahead, reader)
            seen = place

    async def _look_at(self, item: str | Loop, path: list[int], undecided: Set[str]) -> bool:
        """Decide `item` if that can be done here; whether it is decided."""
        if isinstance(item, Loop):
            return undecided.isdisjoint(item.sources) and await self._loop(item, path)
        if not undecided.isdisjoint(self.plan.steps[item].waits_for):
            return False
        return self.is_decided(item, path) or await self._step(item, path, undecided)

    async def _loop(self, loop: Loop, path: list[int]) -> bool:
        """Walk the rounds of `loop` as far as they go; whether it has ended."""
        name = rounds(loop.first)
        now = self.values.get(name)
        if now is None or now["at"] != path:
            now = {"at": path, "round": 1, "brought": []}
        while "ended" not in now:
            self.write(name, now)
            if await self._walk(loop.body, [*path, now["round"]]):
                return False
            brought = [
                [arc.input, carried(arc, self.values, self.plan.steps)]
                for arc in loop.back
                if is_live(arc, self.values)
            ]
            if not brought:
                now = {**now, "ended": "done"}
            elif now["round"] < loop.most:
                now = {**now, "round": now["round"] + 1, "brought": brought}
            else:
                self._must_have_limit(loop.first, [*path, loop.most], loop.most)
                now = {**now, "brought": brought, "ended": LIMIT}
        self.write(name, now)
        return True

    def _must_have_limit(self, first: str, path: list[int], number: int) -> None:
        """A loop that has had all its rounds goes on by its port `LIMIT`, or the run fails."""
        arcs = (arc for step in self.plan.steps.values() for arc in step.arcs if arc.source == first)
        if any(arc.port == LIMIT for arc in arcs):
            return
        name = self.plan.steps[first].name
        message = f"the loop that begins with {name!r} has had its {number} rounds, and would go on"
        failed = StepFailed(first, "loop_limit", message, rounds=number)
        self.run.reporter.failed(self.place(first, path), failed.error)
        raise failed

    async def _step(self, id: str, path: list[int], undecided: Set[str]) -> bool:
        """Decide `id` if that can be done here; whether it is decided."""
        step, body = self.plan.steps[id], self.plan.maps.get(id)
        if body is not None:
            started = self.values.get(items(id))
            if started is not None and started["at"] == path:
                return await self._finish_map(step, path, started)
        arrived, waits = self.arrived(step, path, undecided)
        if waits:
            return False
        if not arrived and not self.starts(step, path):
            self._skip(step, path)
            return True
        return await self._run(step, path, arrived)

    async def _run(self, step: Step, path: list[int], arrived: Arrived) -> bool:
        """Run a step that can, unless it gets a superstep of its own; whether it has run."""
        id = step.id
        if id in self.plan.maps:
            return await self._begin_map(step, path, arrived)
        if id in self.work.schedule.apart:
            self.ready.append(id)
            return False
        await self._act(step, path, arrived)
        return True

    def _skip(self, step: Step, path: list[int]) -> None:
        if step.id in self.work.schedule.first and path[-1] > 1:
            because = {"message": f"no arrow led back to {step.name!r} in the round before", "routers": []}
        else:
            because = why_dead(step, self.values, self.plan.steps)
        self.leave(step.id, path, {"skipped": because})
        self._tell_skipped(step.id, path, because)

    def _tell_skipped(self, id: str, path: list[int], because: Mapping[str, Any]) -> None:
        place = self.place(id, path)
        self.run.reporter.skipped(place, because)
        if id in self.plan.maps:  # nor does anything run that it would have run
            for inner in self.plan.steps:
                if inner in self.plan.maps[id].steps:
                    self.run.reporter.skipped(Place(inner, place.within), because)

    def _tell_left_out(self, map: str, index: int, run: Run, failed: StepFailed) -> None:
        """Tell of the steps that do not run any more, as an item has failed before it came to them."""
        known = self.plan.steps.get(failed.step)
        because = {
            "message": f"item {index} failed at {known.name if known else failed.step!r}",
            "routers": [],
        }
        for id in self.plan.steps:
            if id in self.plan.maps[map].steps and run.witness is not None and id not in run.witness.told:
                self.run.reporter.skipped(Place(id, run.within), because)

    async def _act(self, step: Step, path: list[int], arrived: Arrived) -> None:
        self._breath += 1
        if self._breath % BREATH == 0:
            await asyncio.sleep(0)
        acting = self._acting(step, path)
        left = await acting.act(arrived)
        assert not isinstance(left, Items)
        self.keep(acting.kept)
        self.leave(step.id, path, left)
        if step.type.rounds is not None and left.get("route") == LIMIT:
            self._must_have_limit(step.id, path, path[-1] - 1 if path else 0)

    def _acting(self, step: Step, path: list[int]) -> Acting:
        place = self.place(step.id, path)
        return Acting(
            step,
            self.plan,
            self.run,
            self.values,
            place,
            path,
            lambda call: self._call(step.id, place, call),
            lambda id, given: self._serve(id, place, given),
            lambda name, value: self.check(name, value),
        )

    # Maps, and workflows within workflows

    async def _begin_map(self, step: Step, path: list[int], arrived: Arrived) -> bool:
        acting = self._acting(step, path)
        left = await acting.act(arrived)
        if not isinstance(left, Items):  # it failed, and the run goes on
            self.leave(step.id, path, left)
            return True
        try:
            values, size = await clean_aside(list(left.values))
        except UnsafeValue as exc:
            failed = StepFailed(step.id, "unsafe_output", f"the items cannot be kept: {exc}")
            self.leave(step.id, path, acting.give_up(failed))
            return True
        self.run.meter.add(step.id, {"output_bytes": size})
        started = {
            "at": path,
            "values": values,
            "on_error": left.on_error,
            "max_concurrency": left.max_concurrency,
            "began": time.time(),
        }
        self.values[items(step.id)], self.values[results(step.id)] = started, []
        if not values:
            because = {"message": f"{step.name!r} had no items", "routers": []}
            for inner in self.plan.steps:
                if inner in self.plan.maps[step.id].steps:
                    self.run.reporter.skipped(Place(inner, acting.place.within), because)
        elif step.id in self.work.schedule.apart:
            self.writes[items(step.id)], self.writes[results(step.id)] = started, [None]
            self.due += [(step.id, index) for index in range(len(values))]
            return False
        else:
            for index in range(len(values)):
                entry, kept = await self.item(step.id, index)
                self.keep(kept)
                self.values[results(step.id)].append(entry)
        return await self._finish_map(step, path, started)

    async def _finish_map(self, step: Step, path: list[int], started: Mapping[str, Any]) -> bool:
        came = self.values[results(step.id)]
        if len(came) < len(started["values"]):
            return False
        came = sorted(came, key=lambda each: each["index"])
        errors = [{"index": each["index"], "error": each["error"]} for each in came if "error" in each]
        acting = self._acting(step, path)
        if errors and started["on_error"] == "stop":
            first = errors[0]
            message = f"item {first['index']}: {first['error']['step']}: {first['error']['message']}"
            failed = StepFailed(step.id, first["error"]["code"], message, item=first["index"])
            self.leave(step.id, path, acting.give_up(failed))
            return True
        kept = [each for each in came if "error" not in each or started["on_error"] == "keep"]
        done = [{"error": each["error"]} if "error" in each else each["value"] for each in kept]
        try:
            outputs, size = await clean_aside({"done": done, "errors": errors})
        except UnsafeValue as exc:
            failed = StepFailed(step.id, "unsafe_output", f"the results cannot be kept: {exc}")
            self.leave(step.id, path, acting.give_up(failed))
            return True
        self.run.meter.add(step.id, {"output_bytes": size})
        ms = max(round((time.time() - started["began"]) * 1000), 0)
        self.run.reporter.finished(acting.place, step.type, outputs, ms, {})
        self.leave(step.id, path, {"outputs": outputs})
        return True

    async def _inside(self, map: str, run: Run) -> tuple[State, dict[str, list[Any]]]:
        """Run the body of `map` once: the state at its end, and what it adds to variables."""
        if map in self.work.nested:
            state = await self.work.nested[map](run)
            return {**run.outer, **state}, {name: list(new) for name, new in state.get(KEPT) or ()}
        frame = Frame(self.work, run.outer, run, map)
        await frame.finish()
        return frame.values, frame.kept

    async def _call(self, step: str, place: Place, call: Call) -> Any:
        """Run the workflow that `step` calls; its result."""
        run = self._run_within(step, place, call.input)
        plan = self.work.children[step].plan
        if step in self.work.nested:
            return result(plan, await self.work.nested[step](run))
        frame = Frame(self.work.children[step], {}, run)
        await frame.finish()
        return result(plan, frame.values)

    async def _serve(self, tool: str, place: Place, given: Any) -> Any:
        """Run the workflow that `tool` is, in a task of its own: what it does is not what its agent does."""
        number = self.run.served[tool] = self.run.served.get(tool, -1) + 1
        run = self._run_within(tool, place, given, number)
        run.slots = asyncio.Semaphore(self.plan.max_concurrency)  # its agent holds one of the others
        run.reporter = run.reporter.of_task(None)  # else the agent's own words would wait behind its ends

        async def go() -> Any:
            var_child_runnable_config.set(None)  # else its models' words would count as those of the agent
            frame = Frame(self.work.children[tool], {}, run)
            await frame.finish()
            return result(self.work.children[tool].plan, frame.values)

        return await asyncio.create_task(go())

    def _run_within(self, step: str, place: Place, given: Any, number: int = 0) -> Run:
        plan = self.work.children[step].plan
        trigger = plan.starts(None)
        return replace(
            self.run,
            trigger=trigger,
            roots={**self.run.roots, "input": given, "trigger": {"type": "workflow", "step": trigger}},
            within=(*place.within, ("call", step, number)),
            outer={},
            objects={},
            making={},
            witness=None,
            served={},
            meter=self.run.meter.inside(plan.limits),
        )


@asynccontextmanager
async def _together() -> AsyncIterator[Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]]:
    """Run several at once; when one fails, the others are cancelled and its error is the error of all."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group.create_task
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
