"""Ends a process whose event loop stands still, so that its runs go on elsewhere, and says where it stood.

A thread watches as long as it gets to run. C code that holds the interpreter stops that thread as well: there
`faulthandler`, which needs no interpreter, writes the stacks to standard error and ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import FrameType

from flowserver.metrics import Metrics

BEAT = 0.5
"""Seconds between two signs of life of the event loop, and between two looks at them."""
NOTICED = 3.0
"""Seconds without a sign of life after which the log says where the loop stands."""
STATUS = 70
"""Exit status of a process that stood still: EX_SOFTWARE of sysexits.h."""
SPARE = 2 * BEAT
"""Seconds beyond the limit that the watching thread has to get to run."""
OURS = ("flowserver.", "graphs.", "nodes.")

logger = logging.getLogger(__name__)


@asynccontextmanager
async def watched(limit: float, metrics: Metrics) -> AsyncIterator[None]:
    """Watch the running event loop, meanwhile; end the process when it has stood still for `limit` seconds.

    Stalls are counted in `metrics`. With a `limit` of 0 they are, too, but the process goes on.
    """
    watch = _Watch(limit, metrics)
    beating = asyncio.create_task(watch.beat())
    watch.start()
    try:
        with _paused_by_terminal(watch):
            yield
    finally:
        beating.cancel()
        watch.stop()


class _Watch:
    def __init__(self, limit: float, metrics: Metrics) -> None:
        self._limit = limit
        self._metrics = metrics
        self._main = threading.get_ident()
        self._beats = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)

    def start(self) -> None:
        self.arm()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=2)
        faulthandler.cancel_dump_traceback_later()

    async def beat(self) -> None:
        while True:
            self._beats += 1
            await asyncio.sleep(BEAT)

    def arm(self) -> None:
        """Have the process ended unless this is called again in time."""
        if self._limit:
            # A descriptor, as what stands for sys.stderr may have none.
            faulthandler.dump_traceback_later(self._limit + SPARE, exit=True, file=2)

    def _look(self) -> None:
        """Look for signs of life. Time in which this thread does not run is not counted."""
        seen, still, where = 0, 0.0, ""
        while not self._stopped.wait(BEAT):
            self.arm()
            if self._beats != seen:
                if where:
                    logger.warning("the event loop goes on after %.1f s", still)
                seen, still, where = self._beats, 0.0, ""
                continue
            still += BEAT
            if not where and still >= min(NOTICED, self._limit or NOTICED):
                where = self._tell(still)
            if where:
                self._metrics.loop_stalled.inc(BEAT)
            if self._limit and still >= self._limit:
                logger.critical("stood still for %.1f s in %s: this process ends", still, where)
                logging.shutdown()
                os._exit(STATUS)

    def _tell(self, still: float) -> str:
        """Log where the event loop stands; the function."""
        frame = sys._current_frames().get(self._main)
        where = _place(frame)
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        self._metrics.loop_stalls.labels(where).inc()
        logger.warning("the event loop has stood still for %.1f s in %s:\n%s", still, where, stack)
        return where


def _place(frame: FrameType | None) -> str:
    """The innermost function of ours that `frame` is in, or else the innermost one."""
    names = [f"{each.f_globals.get('__name__')}.{each.f_code.co_qualname}" for each, _ in _walk(frame)]
    return next((name for name in names if name.startswith(OURS)), names[0] if names else "an unknown place")


def _walk(frame: FrameType | None) -> list[tuple[FrameType, int]]:
    return list(traceback.walk_stack(frame)) if frame is not None else []


@contextlib.contextmanager
def _paused_by_terminal(watch: _Watch) -> Iterator[None]:
    """Let Ctrl-Z stop the process without an end when it comes back."""
    loop = asyncio.get_running_loop()

    def pause() -> None:
        faulthandler.cancel_dump_traceback_later()
        os.kill(os.getpid(), signal.SIGSTOP)
        watch.arm()

    loop.add_signal_handler(signal.SIGTSTP, pause)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTSTP)
