"""`flowserver worker`: a process that executes runs of the queue, without HTTP."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flowserver.app import create_status_app
from flowserver.assembly import Flowserver, assemble
from flowserver.database import database
from flowserver.errors import Unavailable
from flowserver.logs import set_up_log
from flowserver.serving import leave, listen, make_server, run
from flowserver.settings import Settings
from flowserver.watchdog import watched


def work(settings: Settings) -> int:
    """Execute runs until SIGINT or SIGTERM; return the exit status."""
    set_up_log(settings)
    try:
        with database(settings) as dsn:
            run(_work(settings, dsn))
    except Unavailable as exc:
        print(f"flowserver: {exc}", file=sys.stderr)
        return 1
    return leave(0)


async def _work(settings: Settings, dsn: str) -> None:
    stopped = asyncio.Event()
    me, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert me is not None

    def stop() -> None:
        """Stop in good order at the first signal; at the second, at once."""
        if stopped.is_set():
            me.cancel()
        stopped.set()

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if each != signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN:  # nohup(1) ignores it
            loop.add_signal_handler(each, stop)
    async with (
        assemble(settings, dsn) as flowserver,
        watched(settings.stall_seconds, flowserver.metrics),
        _status(settings, flowserver) as status,
    ):
        most = settings.max_runs
        print(
            f"flowserver executes up to {most} runs at a time here as {flowserver.worker}   (Ctrl-C stops it)"
        )
        if status:
            print(f"its metrics are at {status}/metrics")
        sys.stdout.flush()
        await stopped.wait()


@asynccontextmanager
async def _status(settings: Settings, flowserver: Flowserver) -> AsyncIterator[str | None]:
    """Answer /metrics and /health meanwhile, if the operator wishes; the address."""
    if settings.metrics_port is None:
        yield None
        return
    with listen(settings.host, settings.metrics_port) as listening:
        ready = asyncio.Event()
        server = make_server(create_status_app(flowserver), ready)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await ready.wait()
        host, port = listening.getsockname()[:2]
        try:
            yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
        finally:
            server.should_exit = True
            await serving
