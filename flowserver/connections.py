"""Connections that workflows make otherwise than by HTTP: to the same hosts that they may reach by HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

from ssrfguard import Address, BlockedAddressError, Resolver, SSRFGuardError, resolve

from flowserver.outbound import policy_for
from flowserver.threads import Threads
from nodes.contract import NodeError

MOST_LOOKED_UP = 10.0
"""Seconds that looking up a name may take."""


class Connections:
    """Fulfils `nodes.connections.Connections`; one for the whole process."""

    def __init__(self, allow: Sequence[str], resolver: Resolver | None = None) -> None:
        """`allow` are the operator's hosts, as `outbound_client` takes them."""
        self._allow = allow
        self._resolver = resolver
        # A name server may keep one waiting for long: that costs nobody else a thread.
        self._threads = Threads(16)

    async def open(self, host: str, port: int, seconds: float) -> socket.socket:
        """See `nodes.connections.Connections`."""
        addresses = await self.addresses(host, port)
        try:
            async with asyncio.timeout(seconds):
                return await _first(addresses)
        except (OSError, TimeoutError) as exc:
            why = "not in time" if isinstance(exc, TimeoutError) else "nothing answers there"
            raise NodeError(f"could not connect to {host}:{port}: {why}", code="connect_failed") from None

    async def addresses(self, host: str, port: int) -> Sequence[Address]:
        """The addresses behind a host that may be connected to.

        Raises:
            NodeError: None, or there is no such host.
        """
        try:
            policy = policy_for(host, port, self._allow)
            target = policy.check_url(f"https://{_in_url(host)}:{port}/")
            return await self._threads.call(
                MOST_LOOKED_UP, lambda: resolve(target, policy=policy, resolver=self._resolver)
            )
        except SSRFGuardError as exc:
            is_private = isinstance(exc, BlockedAddressError)
            why = "it does not lead to a public address" if is_private else "it is no host name"
            message = f"{host[:100]!r} is not allowed: {why}"
            raise NodeError(message, code="host_not_allowed", is_final=True) from None
        except (socket.gaierror, TimeoutError, UnicodeError):
            raise NodeError(f"{host[:100]!r} cannot be found", code="connect_failed") from None


async def _first(addresses: Sequence[Address]) -> socket.socket:
    """A connection to the first that answers."""
    failed: OSError | None = None
    for each in addresses:
        line = socket.socket(each.family, socket.SOCK_STREAM)
        line.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(line, each.sockaddr)
        except BaseException as exc:
            line.close()
            if not isinstance(exc, OSError):
                raise
            failed = exc
        else:
            return line
    raise failed or OSError("no address")


def _in_url(host: str) -> str:
    try:
        return f"[{host}]" if isinstance(ip_address(host), IPv6Address) else host
    except ValueError:
        return host
