"""
What the server refuses on purpose:

* FlowserverError
  - NotFound            no such thing, or somebody else's
  - NotAuthenticated    no key, or a wrong one
  - BadRequest          the request does not fit: what, where, what is allowed
    - KeyReused         its idempotency key belongs to another request
  - TooLarge            there is more of it than may be
  - TooMany             there have been too many of them lately
  - NotGenuine          a webhook's caller has not shown that he may call it
  - Conflict            it does not fit the state of things
    - RevisionConflict  the workflow has been changed in between
    - NotOpen           the question is not open (any more)
    - RunEnded          the run has ended
    - ThreadBusy        the session has another run that is not done
    - NotPublished      nothing of the workflow is published
    - PathTaken         another webhook has the path
    - DrawnElsewhere    a drawing says it, so it is changed there
    - CredentialNameTaken  a credential of that name exists
  - Forgotten           it was kept for as long as it was to be
  - NoEncryptionKey     this server can keep no secrets
  - SecretUnreadable    a stored secret cannot be opened
    - UnknownKey        it was sealed with a key that is not loaded
    - DamagedSecret     it was changed, or belongs elsewhere
* Unavailable           what the server needs cannot be used: at start, told in one sentence
* Fenced                this process has lost its run to another one
"""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID


class FlowserverError(Exception):
    """Base of every refusal; `code` is stable, for programs."""

    code: ClassVar[str] = "refused"


class NotFound(FlowserverError):
    """The thing asked for does not exist."""

    code = "not_found"

    def __init__(self, kind: str, id: UUID | str) -> None:
        self.kind = kind
        self.id = id
        super().__init__(f"there is no {kind} {id}")


class NotAuthenticated(FlowserverError):
    """The request carries no key that this server knows."""

    code = "not_authenticated"

    def __init__(self) -> None:
        super().__init__("send an API key as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'")


class BadRequest(FlowserverError):
    """The request does not fit; the message says what was found and what is allowed."""

    code = "bad_request"


class TooLarge(FlowserverError):
    """There is more of it than may be."""

    code = "too_large"

    def __init__(self, most: int, setting: str) -> None:
        """`setting` is what says how much there may be."""
        super().__init__(f"the body may have {most:,} bytes ({setting})")


class TooMany(FlowserverError):
    """There have been too many of them lately."""

    code = "too_many_requests"

    def __init__(self, what: str, seconds: float) -> None:
        """`seconds` from now it may be tried again."""
        self.seconds = seconds
        super().__init__(f"{what}; try again in {seconds:.0f} seconds")


class NotGenuine(FlowserverError):
    """Whoever calls a webhook has not shown that he may."""

    code = "not_authenticated"

    def __init__(self) -> None:
        super().__init__("the request is not signed or authenticated as this webhook requires")


class KeyReused(BadRequest):
    """The idempotency key was used for another request."""

    code = "idempotency_key_reused"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"the Idempotency-Key {key!r} was used for a request with another body; take a new one"
        )


class Conflict(FlowserverError):
    """The request does not fit the state of things."""

    code = "conflict"


class RevisionConflict(Conflict):
    """The workflow has been changed since the caller read it."""

    code = "revision_conflict"

    def __init__(self, id: UUID, expected: str, found: int) -> None:
        super().__init__(f"workflow {id} is at revision {found}, not {expected}; read it again")


class NotOpen(Conflict):
    """The question has been answered, closed, or never asked."""

    code = "question_not_open"


class RunEnded(Conflict):
    """The run has a final status."""

    code = "run_ended"

    def __init__(self, id: UUID, status: str) -> None:
        super().__init__(f"run {id} has {status} and cannot be changed")


class ThreadBusy(Conflict):
    """The session has another run that is not done."""

    code = "thread_busy"

    def __init__(self, run: UUID, status: str) -> None:
        self.run = run
        doing = "waits for an answer" if status == "waiting" else f"is {status}"
        super().__init__(f"run {run} of this session {doing}; answer it, cancel it, or wait for its end")


class CredentialNameTaken(Conflict):
    """The organisation has a credential of that name."""

    code = "name_taken"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is a credential named {name!r} already; take another name, or change that one"
        )


class NotPublished(Conflict):
    """Nothing of the workflow is published."""

    code = "not_published"

    def __init__(self, workflow: UUID) -> None:
        super().__init__(f"workflow {workflow} is not published")


class PathTaken(Conflict):
    """Another webhook has the path."""

    code = "path_taken"

    def __init__(self, path: str, step: str | None = None) -> None:
        of = f" of {step!r}" if step else ""
        super().__init__(f"another webhook has the path {path!r}{of}; choose another one")


class DrawnElsewhere(Conflict):
    """What a drawing says is changed there."""

    code = "drawn"

    def __init__(self, kind: str, id: UUID) -> None:
        super().__init__(f"{kind} {id} stands in a drawing: change it there and publish the workflow")


class Forgotten(FlowserverError):
    """It was kept for as long as its workflow wants."""

    code = "forgotten"

    def __init__(self, what: str, run: UUID) -> None:
        super().__init__(f"the {what} of run {run} are no longer kept; its result is at /api/v1/runs/{run}")


class RunForgotten(FlowserverError):
    """A delivery came before, and what it started then was kept for as long as it was to be."""

    code = "forgotten"

    def __init__(self, delivery: UUID) -> None:
        super().__init__(f"this is delivery {delivery}, which came before; its run is no longer kept")


class NoEncryptionKey(FlowserverError):
    """There is no key to seal secrets with."""

    code = "no_encryption_key"

    def __init__(self) -> None:
        super().__init__(
            "this server has no key to seal secrets with; its operator has to set FLOWSERVER_ENCRYPTION_KEYS"
        )


class SecretUnreadable(FlowserverError):
    """A stored secret cannot be opened."""

    code = "secret_unreadable"


class UnknownKey(SecretUnreadable):
    """A secret was sealed with a key that is not loaded."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        super().__init__(f"the secret was sealed with the key {key_id!r}, which this server does not have")


class DamagedSecret(SecretUnreadable):
    """What is stored is not what was sealed for this place."""

    def __init__(self) -> None:
        super().__init__("the stored secret is damaged, or was sealed for another place")


class Unavailable(Exception):
    """What the server needs cannot be used; the message is one sentence for the operator."""


class Fenced(Exception):
    """This process has lost its run: another one claimed it, or it has ended."""
