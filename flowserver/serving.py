"""`flowserver serve`: the process around the application, from the first import to the last Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowserver.errors import Unavailable
from flowserver.logs import set_up_log
from flowserver.settings import Settings
from flowserver.threads import UnjoinedExecutor, unfinished
from flowserver.watchdog import watched

if TYPE_CHECKING:
    import uvicorn
    from litestar import Litestar

    from flowserver.assembly import Flowserver, Role

PORTS = 50
"""How many ports, from the wanted one on, are tried."""
LAST_THREADS = 2.0
"""Seconds that threads have to end when everything else has."""

logger = logging.getLogger(__name__)


def serve(settings: Settings, examples: Path | None, demo: str | None, *, worker: bool = True) -> int:
    """Serve until SIGINT or SIGTERM, with a worker inside unless told otherwise; return the exit status."""
    set_up_log(settings)
    # The imports below take longer than Postgres needs to start, so they run side by side.
    warming = threading.Thread(target=_import_application, daemon=True)
    warming.start()
    from flowserver.database import database  # noqa: PLC0415  Postgres starts before anything else is loaded

    try:
        with database(settings) as dsn:
            warming.join()
            status = _serve(settings, dsn, examples, demo, "worker" if worker else "none")
    except Unavailable as exc:
        print(f"flowserver: {exc}", file=sys.stderr)
        return 1
    return leave(status)


def leave(status: int) -> int:
    """Return `status`; or end the process with it if some thread would not let that happen in time."""
    if left := unfinished(LAST_THREADS):
        logger.warning("ended without waiting for threads that still worked: %s", ", ".join(left))
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _import_application() -> None:
    import uvicorn  # noqa: F401, PLC0415

    import flowserver.app  # noqa: F401, PLC0415


def _serve(settings: Settings, dsn: str, examples: Path | None, demo: str | None, role: Role) -> int:
    from flowserver.app import create_app  # noqa: PLC0415

    with listen(settings.host, settings.port) as listening:
        app = create_app(settings, dsn, role=role)
        ready = asyncio.Event()
        server = make_server(app, ready)

        async def go() -> None:
            _stop_by_signals(server, app)
            # Ours, as uvicorn would log a traceback where an Unavailable says it all.
            async with app.lifespan(), watched(settings.stall_seconds, app.state.flowserver.metrics):
                greeting = asyncio.create_task(_greet(ready, app, listening, examples, demo))
                greeting.add_done_callback(_tell)
                await server.serve(sockets=[listening])
                greeting.cancel()
                await asyncio.wait([greeting])

        run(go())
    return 0 if server.started else 1


def run(going: Coroutine[Any, Any, None]) -> None:
    """Run to the end, or until cancelled because it was stopped before it had started."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner, contextlib.suppress(asyncio.CancelledError):
        runner.get_loop().set_default_executor(UnjoinedExecutor())
        try:
            runner.run(going)
        except ExceptionGroup as exc:  # Litestar's, around what was raised in its lifespan
            raise exc.exceptions[0] from None


def make_server(app: Litestar, ready: asyncio.Event) -> uvicorn.Server:
    """A server of `app` that sets `ready` when it answers; the application's lifespan is its caller's."""
    import uvicorn  # noqa: PLC0415

    from flowserver.http.protocol import LimitedProtocol  # noqa: PLC0415

    class Server(uvicorn.Server):
        """Says when it is ready, and leaves signals to us."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready.set()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn's own would raise SIGTERM again at the end, before Postgres is stopped
            yield

    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        # Whose X-Forwarded-For counts, FLOWSERVER_TRUSTED_PROXIES says.
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=65,
    )
    return Server(config)


def _stop_by_signals(server: uvicorn.Server, app: Litestar) -> None:
    """Stop cleanly at the first signal, streams first, then runs are handed over; at the second, at once."""
    serving, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert serving is not None

    def stop(number: int) -> None:
        if not server.started:
            serving.cancel()
        elif server.should_exit:
            server.force_exit = True
            for task in asyncio.all_tasks() - {serving}:
                task.cancel()
        else:
            app.state.flowserver.feeds.close()
            server.handle_exit(number, None)

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if each != signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN:  # nohup(1) ignores it
            loop.add_signal_handler(each, stop, each)


def _tell(greeting: asyncio.Task[None]) -> None:
    if not greeting.cancelled() and (failed := greeting.exception()) is not None:
        logger.error("the server works, but its greeting broke off", exc_info=failed)


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
    numbers = range(port, min(port + PORTS, 65536)) if port else range(1)
    for number in numbers:
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
    raise Unavailable(f"ports {port} to {numbers[-1]} of {host} are all taken")


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
