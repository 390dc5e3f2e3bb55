"""`flowserver serve`: the process around the application, from the first import to the last Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from flowserver.errors import Unavailable
from flowserver.settings import Settings

if TYPE_CHECKING:
    from litestar import Litestar

    from flowserver.assembly import Flowserver

PORTS = 50
"""How many ports, from the wanted one on, are tried."""


def serve(settings: Settings, examples: Path | None, demo: str | None) -> int:
    """Serve until SIGINT or SIGTERM; return the exit status."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # The imports below take longer than Postgres needs to start, so they run side by side.
    warming = threading.Thread(target=_import_application, daemon=True)
    warming.start()
    from flowserver.database import database  # noqa: PLC0415  Postgres starts before anything else is loaded

    try:
        with database(settings) as dsn:
            warming.join()
            return _serve(settings, dsn, examples, demo)
    except Unavailable as exc:
        print(f"flowserver: {exc}", file=sys.stderr)
        return 1


def _import_application() -> None:
    import uvicorn  # noqa: F401, PLC0415

    import flowserver.app  # noqa: F401, PLC0415


def _serve(settings: Settings, dsn: str, examples: Path | None, demo: str | None) -> int:
    import uvicorn  # noqa: PLC0415

    from flowserver.app import create_app  # noqa: PLC0415

    listening = listen(settings.host, settings.port)
    app = create_app(settings, dsn)
    ready = asyncio.Event()

    class Server(uvicorn.Server):
        """Stops cleanly: streams end first, then runs are handed over, then we return."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready.set()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if started := getattr(app.state, "flowserver", None):
                started.feeds.close()
            super().handle_exit(sig, frame)

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn's own would raise SIGTERM again at the end, before Postgres is stopped
            loop = asyncio.get_running_loop()
            for each in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(each, self.handle_exit, each, None)
            yield

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=5,
        timeout_keep_alive=65,
    )
    server = Server(config)

    async def go() -> None:
        greeting = asyncio.create_task(_greet(ready, app, listening, examples, demo))
        await server.serve(sockets=[listening])
        greeting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await greeting

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(go())
    return 0 if server.started else 1


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on `host`, at `port` or the next free one.

    Raises:
        Unavailable: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in range(port, min(port + PORTS, 65536)) if port else (0,):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, number))
            listening.listen(2048)
        except OSError as exc:
            listening.close()
            if exc.errno == errno.EADDRINUSE:
                continue
            raise Unavailable(f"cannot listen on {host}:{number}: {exc.strerror}") from None
        if port and number != port:
            print(f"port {port} is taken, so it is {number} this time")
        return listening
    raise Unavailable(f"ports {port} to {port + PORTS - 1} of {host} are all taken")


async def _greet(
    ready: asyncio.Event,
    app: Litestar,
    listening: socket.socket,
    examples: Path | None,
    demo: str | None,
) -> None:
    """Say where the server is, once it answers; then show an example at work."""
    from flowserver.welcome import greet  # noqa: PLC0415

    await ready.wait()
    flowserver: Flowserver = app.state.flowserver
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    await greet(flowserver, f"http://{shown}:{port}", examples, demo)
