"""Which Postgres a process uses: the operator's, or an embedded one that is started for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flowserver.cluster import PostgresFailed
from flowserver.embedded import start
from flowserver.errors import Unavailable
from flowserver.settings import Settings, variable


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """The DSN of a Postgres that runs at least as long as the context.

    Raises:
        Unavailable: The embedded one cannot be started, or the operator's has no address.
    """
    if settings.database_url is not None:
        _check(settings.database_url)
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


def _check(address: str) -> None:
    import psycopg  # noqa: PLC0415  the embedded one starts before it is loaded

    try:
        psycopg.conninfo.conninfo_to_dict(address)
    except psycopg.ProgrammingError:  # its message quotes the address, and so the password
        raise Unavailable(
            f"{variable('database_url')} is no address of a Postgres: "
            "write postgresql://user:password@host:5432/name"
        ) from None
