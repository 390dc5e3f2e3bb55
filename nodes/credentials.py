"""Credentials as nodes see them: a setting that names one, and the door to what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol, TypeAlias

from nodes.contract import setting

CredentialId: TypeAlias = Annotated[
    str | None,
    setting(
        "credential",
        credential=True,
        template=False,
        description="The id of one of your credentials, whose secrets are used.",
    ),
]
"""What a node's `Config` annotates its field `credential_id` with."""


class Credentials(Protocol):
    """The door to the credentials of the run's organisation."""

    async def get(self, id: str, *, host: str | None = None, usual: str | None = None) -> Mapping[str, str]:
        """The fields of a credential.

        `host` is where the drawing wants its secrets sent, if it says so; `usual` where they go if the
        credential does not say it either.

        Raises:
            NodeError: There is no such credential (any more): `credential_not_found`; or it is for other
                hosts: `credential_host`.
        """
        ...
