"""What every test has: its own database if it asks for one, and no way to other machines."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.databases import Databases, close_session, joined, open_session

_SESSION = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    given: dict[str, str] | None = getattr(config, "workerinput", None)
    config.stash[_SESSION] = Path(given["databases"]) if given else open_session()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["databases"] = str(node.config.stash[_SESSION])


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and _SESSION in config.stash:
        close_session(config.stash[_SESSION])


@pytest.fixture(scope="session")
def databases(pytestconfig: pytest.Config) -> Iterator[Databases]:
    """The session's Postgres, for tests that need more than one migrated database."""
    with joined(pytestconfig.stash[_SESSION]) as databases:
        yield databases


@pytest.fixture
def dsn(databases: Databases) -> Iterator[str]:
    """A fresh, migrated database of the test's own."""
    with databases.fresh() as dsn:
        yield dsn


class NetworkForbidden(RuntimeError):
    """A test tried to reach another machine; not an OSError, which clients would retry or hide."""


def _stay_here(event: str, args: tuple[Any, ...]) -> None:
    match event:
        case "socket.connect" | "socket.sendto" | "socket.sendmsg":
            connection, address = args
            if (
                connection.family in (socket.AF_INET, socket.AF_INET6)
                and address
                and not _is_here(address[0])
            ):
                raise NetworkForbidden(f"a test may not connect to {address[0]}:{address[1]}")
        case "socket.getaddrinfo" | "socket.gethostbyname":
            if _must_be_looked_up(args[0]):
                raise socket.gaierror(socket.EAI_NONAME, f"tests have no name server to look up {args[0]!r}")


def _is_here(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _must_be_looked_up(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host or ""
    return not (_is_here(name) or _is_address(name) or name == socket.gethostname())


def _is_address(name: str) -> bool:
    # Old forms too, such as 127.1 and 0x7f000001: they name an address without asking anybody.
    for parse in (socket.inet_aton, partial(socket.inet_pton, socket.AF_INET6)):
        with suppress(OSError, ValueError):
            parse(name.split("%")[0])
            return True
    return False


# A hook sees every socket of this process, whichever way a client got it, and cannot be patched away.
sys.addaudithook(_stay_here)
