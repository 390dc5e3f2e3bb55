"""What requests bring and answers carry, besides workflows and runs themselves."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec
import msgspec.inspect

from flowserver.errors import BadRequest
from flowserver.starts import OnBusy
from graphs.alone import Bound
from graphs.options import Limits
from graphs.plan import Durability
from graphs.problems import Problem
from graphs.summary import PlanSummary
from nodes.vectors import Collection, Distance, Found, Mode

Item = TypeVar("Item")

MAX_PAGE = 200
MAX_SKIP = 1_000_000


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request body: a field we do not know is refused, not dropped; so are texts that Postgres refuses."""

    def __post_init__(self) -> None:
        for name in _texts(type(self)):
            value = getattr(self, name)
            if isinstance(value, str) and "\x00" in value:
                raise ValueError(f"{name!r} holds U+0000, which no text can hold here")


@cache
def _texts(body: type[Body]) -> tuple[str, ...]:
    """The fields of a body that hold a text, and not any value."""
    info = msgspec.inspect.type_info(body)
    assert isinstance(info, msgspec.inspect.StructType)
    return tuple(field.name for field in info.fields if not isinstance(field.type, msgspec.inspect.AnyType))


class CheckWorkflow(Body, frozen=True, kw_only=True):
    flow_data: dict[str, Any]


class Checked(msgspec.Struct, frozen=True):
    """What was found: errors first; the plan where there is none."""

    problems: tuple[Problem, ...]
    plan: PlanSummary | None


class SaveWorkflow(Body, frozen=True, kw_only=True):
    name: str
    description: str | None = None
    flow_data: dict[str, Any]


class ChangeWorkflow(Body, frozen=True, kw_only=True):
    name: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    flow_data: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class NewCallback(Body, frozen=True, kw_only=True):
    """Who is told of a run's end, by a signed message as Standard Webhooks has it."""

    url: str
    secret: str | None = None
    """`whsec_…`, what the message is signed with; left out, it is the one of `/callbacks/secret`."""


class PublishWorkflow(Body, frozen=True, kw_only=True):
    """Which version; everything may be left out."""

    version: str | None = None
    """One of the workflow's versions instead of its newest."""


class RunWorkflow(Body, frozen=True, kw_only=True):
    """How to run a workflow; everything may be left out."""

    input: Any = None
    session_id: str | None = None
    mode: Literal["wait", "stream", "background"] = "wait"
    trigger: str | None = None
    """The id of the trigger to start with; else the StartNode, or the first trigger."""
    on_busy: OnBusy = "enqueue"
    on_disconnect: Literal["continue", "cancel"] = "continue"
    """What becomes of the run when the client of its stream leaves."""
    durability: Durability | None = None
    callback: NewCallback | None = None
    """Who is told of the run's end."""
    limits: Limits | None = None
    """What this run may use up, besides the limits of the workflow itself."""


class RunSaved(RunWorkflow, frozen=True, kw_only=True):
    version: str | None = None
    """One of the workflow's versions, or `published`, instead of its newest."""


class RunDrawing(RunWorkflow, frozen=True, kw_only=True):
    flow_data: dict[str, Any]


class CheckNode(Body, frozen=True, kw_only=True):
    config: dict[str, Any] = {}
    """The settings, as they would lie in a node's `data`."""


class TryNode(RunWorkflow, frozen=True, kw_only=True):
    """What a node is tried with, besides how it is run."""

    config: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    """Input port -> what arrives there. Without any, `input` does."""
    bindings: dict[str, list[Bound]] = {}
    """Port for providers -> what is bound there."""
    steps: dict[str, Any] = {}
    """Name of an earlier step -> what `{{ name }}` shall mean."""
    vars: dict[str, Any] = {}
    """Variable -> its value."""


class CheckedNode(msgspec.Struct, frozen=True):
    """What was found, errors first; pointers lead into the request."""

    problems: tuple[Problem, ...]


class ForkRun(Body, frozen=True, kw_only=True):
    """Where a new run begins, and with which values; everything may be left out."""

    checkpoint: str | None = None
    """The moment that it goes back to; without one it goes on from the newest."""
    step: str | None = None
    """From this step on, by id or name: it and all that comes after it run again."""
    set: dict[str, dict[str, Any]] = {}
    """Step -> output -> the value that it shall have given; what comes after it runs again."""
    routes: dict[str, str] = {}
    """Router -> the port that it shall have chosen."""
    version: str | None = None
    """Another version of the workflow, or `current`; else the run's own."""
    input: Any = msgspec.UNSET
    """Another input."""


class Answer(Body, frozen=True, kw_only=True):
    question_id: UUID | None = None
    answer: Any


class MakeCollection(Body, frozen=True, kw_only=True):
    name: str
    model: str
    """Whose vectors it will hold."""
    dimension: int
    distance: Distance = "cosine"
    language: str = "english"
    """By whose rules words are found: a text search configuration of Postgres."""
    description: str | None = None


class CollectionDetails(Collection, frozen=True, kw_only=True):
    """A collection, and how much it holds."""

    chunks: int
    documents: int


class SearchCollection(Body, frozen=True, kw_only=True):
    query: str = ""
    """What is looked for by words."""
    vector: list[float] | None = None
    """What is looked for by its vector, made by the collection's model."""
    mode: Mode | None = None
    k: int = 6
    filter: dict[str, Any] | None = None
    threshold: float = 0.0
    diverse: bool = False


class DocumentDetails(msgspec.Struct, frozen=True):
    """A document with its chunks."""

    id: UUID
    name: str
    chunks: list[Found]


class Page(msgspec.Struct, Generic[Item], frozen=True):
    """A page of a list; `next` is the cursor of the next one."""

    items: list[Item]
    next: str | None


def moment(text: str | None) -> datetime | None:
    """The instant that a list goes on before.

    Raises:
        BadRequest: It is not a cursor of ours.
    """
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        found = None
    if text and (found is None or found.tzinfo is None):
        raise BadRequest("'cursor' is not one that this list gave")
    return found


def cursor(text: str | None) -> UUID | None:
    """The id that a list goes on after.

    Raises:
        BadRequest: It is not a cursor of ours.
    """
    try:
        return UUID(text) if text else None
    except ValueError:
        raise BadRequest("'cursor' is not one that this list gave") from None
