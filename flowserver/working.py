"""`flowserver worker`: a process that executes runs of the queue, without HTTP."""

from __future__ import annotations

import asyncio
import signal
import sys

from flowserver.assembly import assemble
from flowserver.database import database
from flowserver.errors import Unavailable
from flowserver.logs import set_up_log
from flowserver.serving import run
from flowserver.settings import Settings


def work(settings: Settings) -> int:
    """Execute runs until SIGINT or SIGTERM; return the exit status."""
    set_up_log(settings)
    try:
        with database(settings) as dsn:
            run(_work(settings, dsn))
    except Unavailable as exc:
        print(f"flowserver: {exc}", file=sys.stderr)
        return 1
    return 0


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
    async with assemble(settings, dsn) as flowserver:
        most = settings.max_runs
        print(
            f"flowserver executes up to {most} runs at a time here as {flowserver.worker}   (Ctrl-C stops it)"
        )
        sys.stdout.flush()
        await stopped.wait()
