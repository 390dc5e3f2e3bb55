"""Which Postgres a process uses: the operator's, or an embedded one that is started for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flowserver.cluster import PostgresFailed
from flowserver.embedded import start
from flowserver.errors import Unavailable
from flowserver.settings import Settings


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """The DSN of a Postgres that runs at least as long as the context.

    Raises:
        Unavailable: The embedded one cannot be started.
    """
    if settings.database_url is not None:
        yield settings.database_url
        return
    try:
        postgres = start(settings.data_dir)
    except PostgresFailed as exc:
        raise Unavailable(str(exc)) from None
    try:
        yield postgres.dsn
    finally:
        postgres.stop()
