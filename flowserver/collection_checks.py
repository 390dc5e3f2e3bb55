"""What a drawing says of collections, against what these are: found before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from flowserver.collections import Collections
from graphs.plan import Part, Plan, Step
from graphs.problems import Problem
from nodes.contract import NodeError
from nodes.vectors import Collection


@dataclass(frozen=True, slots=True)
class _Use:
    """A node that stores in a collection, or searches it."""

    node: Step | Part
    collection: str
    facts: Mapping[str, Any]
    model: str | None
    """The embedder's, if it is known before a run."""
    dimension: int | None

    @property
    def stores(self) -> bool:
        return "search_algorithm" in self.facts


async def check_collections(
    collections: Collections, org: UUID, plan: Plan, flow_data: Mapping[str, Any]
) -> list[Problem]:
    """What cannot work because a collection has vectors of another model, errors first."""
    nodes: list[Step | Part] = [*plan.steps.values(), *plan.parts.values()]
    uses = [use for node in nodes if (use := _use(node, plan))]
    anew = {use.collection for use in uses if use.facts.get("pre_delete_collection")}
    stored = {use.collection for use in uses if use.stores}
    places = {str(node.get("id")): at for at, node in enumerate(flow_data["nodes"])}
    found: list[Problem] = []
    for name in sorted({use.collection for use in uses}):
        known = None if name in anew else await _find(collections, org, name)
        those = [use for use in uses if use.collection == name]
        for use in those:
            for code, message in _mistakes(use, known):
                found.append(_problem("error", code, use, places, message))
        if known is None:
            found += _among_themselves(those, places)
        if known is None and name not in stored:
            message = (
                f"there is no collection {name!r} yet, and no step of this workflow stores anything in it"
            )
            found.append(_problem("warning", "no_collection", those[0], places, message))
    found += [problem for use in uses for problem in _elsewhere(use, places)]
    return sorted(found, key=lambda each: each.severity)


def _use(node: Step | Part, plan: Plan) -> _Use | None:
    facts = _facts(node)
    name = facts.get("collection_name")
    if not isinstance(name, str):
        return None
    embedder = next((plan.parts[id] for id in node.bindings.get("embedder", ())), None)
    made_by = _facts(embedder) if embedder is not None else {}
    if not {"model", "dimensions"} <= made_by.keys() or facts.get("mode") == "keyword":
        return _Use(node, name, facts, None, None)
    return _Use(node, name, facts, made_by["model"], made_by["dimensions"])


def _facts(node: Step | Part) -> dict[str, Any]:
    """What the node's type says of its settings, but for what only a run will know."""
    if node.type.facts is None:
        return {}
    told = node.type.facts(node.settings.provisional())
    return {key: value for key, value in told.items() if key not in node.settings.open}


async def _find(collections: Collections, org: UUID, name: str) -> Collection | None:
    try:
        return await collections.find(org, name)
    except NodeError as failed:
        if failed.code == "bad_name":
            return None
        raise


def _mistakes(use: _Use, known: Collection | None) -> Iterator[tuple[str, str]]:
    if known is None:
        return
    if use.model is not None and (message := known.why_not(use.model, use.dimension)):
        yield "model_mismatch", message
    distance = use.facts.get("search_algorithm")
    if distance not in (None, known.distance):
        message = f"the collection {known.name!r} compares by {known.distance}, not by {distance}"
        yield "distance_mismatch", message


def _among_themselves(uses: list[_Use], places: Mapping[str, int]) -> Iterator[Problem]:
    """Nodes that disagree about a collection that is yet to be made; the first that stores is right."""
    known = sorted((use for use in uses if use.model is not None), key=lambda use: not use.stores)
    for use in known[1:]:
        first = known[0]
        both = None not in (use.dimension, first.dimension)
        if use.model != first.model or (both and use.dimension != first.dimension):
            message = (
                f"{use.node.name!r} and {first.node.name!r} use the collection {use.collection!r} with "
                f"different models, whose vectors cannot be compared: {_model(use)} and {_model(first)}"
            )
            yield _problem("error", "model_mismatch", use, places, message)


def _model(use: _Use) -> str:
    return repr(use.model) if use.dimension is None else f"{use.model!r} ({use.dimension} dimensions)"


def _elsewhere(use: _Use, places: Mapping[str, int]) -> Iterator[Problem]:
    for key in ("connection_string", "credential_id"):
        if use.node.settings.fixed.get(key):
            message = f"vectors are kept in the server's own database, so {key!r} has no effect"
            yield _problem("warning", "unused_config", use, places, message)


def _problem(severity: Any, code: str, use: _Use, places: Mapping[str, int], message: str) -> Problem:
    pointer = f"/nodes/{places[use.node.id]}/data" if use.node.id in places else ""
    return Problem(code, severity, use.node.id, pointer, message)
