"""Which steps run together: the optimiser. It decides nothing about what a drawing means.

Steps without effects run where they are, within the superstep of whatever comes before them; only what acts
on the world outside, costs money or waits gets a superstep of its own, and so a checkpoint. Where a branch is
not taken, all of it is skipped in passing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphs.plan import Durability, Loop, Plan, Region, Step


@dataclass(frozen=True, slots=True)
class Way:
    """What comes after what among the steps and loops of a region, by their places in it."""

    places: Mapping[str, int]
    """Step -> the place of it, or of the loop that it is in."""
    sources: tuple[tuple[str, ...], ...]
    """The steps that lead there."""
    readers: tuple[tuple[int, ...], ...]
    """The places that wait for what is there."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the steps of a plan are divided among supersteps."""

    apart: frozenset[str]
    """Steps that get one of their own."""
    nested: frozenset[str]
    """Those of them that are maps, or run another workflow, whose insides need checkpoints of their own."""
    loops: Mapping[str, tuple[Loop, ...]]
    """Step -> the loops that it is in, outermost first, as far as the map around it."""
    first: Mapping[str, Loop]
    """Loop by its first step."""
    durability: Durability
    fuses: bool
    """Whether a step of its own superstep may run where the one before has ended."""
    children: Mapping[str, Schedule]
    ways: Mapping[str | None, Way]
    """Map -> the way through its body; for `None`, through the steps that no map runs."""


@dataclass(frozen=True, slots=True)
class _Weight:
    """What a part of a drawing does outside: effects and questions, where 2 stands for any larger number."""

    effects: int
    asks: int

    @property
    def needs_checkpoints(self) -> bool:
        """Whether a crash could repeat something that a checkpoint in between would have saved.

        Of two effects side by side the first to end is saved while the other is under way.
        """
        return self.effects > 1 or self.asks > 1


def schedule(plan: Plan, *, fuse: bool = True) -> Schedule:
    """Divide the steps of `plan`; without `fuse`, each gets a superstep of its own, as it is drawn."""
    children = {id: schedule(child, fuse=fuse) for id, child in plan.children.items()}
    weigher = _Weigher(plan, {id: _whole(child) for id, child in plan.children.items()})
    maps = {id: weigher.region(body.region) for id, body in plan.maps.items()}
    calls = weigher.children
    apart = {id for id, step in plan.steps.items() if not fuse or weigher.acts(step)}
    nested = {id for id, weight in [*maps.items(), *calls.items()] if not fuse or weight.needs_checkpoints}
    regions = [plan.region, *(body.region for body in plan.maps.values())]
    chains = [loops for region in regions for loops in region.loops()]
    loops: dict[str, tuple[Loop, ...]] = {}
    for chain in chains:  # a loop comes before those inside it
        inside = {item for item in chain[-1].body.items if isinstance(item, str)}
        loops |= dict.fromkeys(inside, chain)
    return Schedule(
        frozenset(apart),
        frozenset(nested),
        loops,
        {chain[-1].first: chain[-1] for chain in chains},
        "sync" if weigher.region(plan.region).needs_checkpoints else "exit",
        fuse,
        children,
        {None: _way(plan, plan.region)} | {id: _way(plan, body.region) for id, body in plan.maps.items()},
    )


def _way(plan: Plan, region: Region) -> Way:
    places: dict[str, int] = {}
    for place, item in enumerate(region.items):
        places |= dict.fromkeys(item.steps, place) if isinstance(item, Loop) else {item: place}
    sources = tuple(item.sources if isinstance(item, Loop) else _sources(plan, item) for item in region.items)
    readers: list[dict[int, None]] = [{} for _ in region.items]
    for place, found in enumerate(sources):
        for source in found:
            if source in places:  # else it is around the map
                readers[places[source]][place] = None
    return Way(places, sources, tuple(map(tuple, readers)))


def _sources(plan: Plan, id: str) -> tuple[str, ...]:
    body = plan.maps.get(id)
    return (*plan.steps[id].sources, *(body.sources if body else ()))


def _whole(plan: Plan) -> _Weight:
    inner = {id: _whole(child) for id, child in plan.children.items()}
    return _Weigher(plan, inner).region(plan.region)


@dataclass(frozen=True, slots=True)
class _Weigher:
    plan: Plan
    children: Mapping[str, _Weight]

    def acts(self, step: Step) -> bool:
        """Whether `step`, or what it runs, does something outside."""
        return self._step(step).effects > 0

    def region(self, region: Region) -> _Weight:
        effects = asks = 0
        for item in region.items:
            if isinstance(item, Loop):
                weight = self.region(item.body)
                effects, asks = effects + 2 * weight.effects, asks + 2 * weight.asks
            else:
                weight = self._step(self.plan.steps[item])
                effects, asks = effects + weight.effects, asks + weight.asks
        return _Weight(min(effects, 2), min(asks, 2))

    def _step(self, step: Step) -> _Weight:
        if step.id in self.plan.maps:
            inside = self.region(self.plan.maps[step.id].region)
            return _Weight(2, 2 * inside.asks) if inside.effects else inside
        if step.id in self.children:
            return self.children[step.id]
        return _Weight(int(step.type.effect), int(step.asks))
