"""The log on standard error, as text or as JSON; every line knows its run and its request."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit
from uuid import UUID

import msgspec

from flowserver.settings import Settings, secrets

run_id: ContextVar[UUID | None] = ContextVar("run_id", default=None)
"""The run that is executed here."""
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The HTTP request that is answered, or that has started the run."""

TALKATIVE = ("httpx", "uvicorn.error", "procrastinate")
"""Libraries that tell of their daily work."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SHORTEST = 6
"""Characters of a secret that is looked for: a shorter one would be found in any word."""


def set_up_log(settings: Settings) -> None:
    """Log to standard error in the format that the operator chose, without the operator's secrets."""
    handler = logging.StreamHandler()
    form = JsonLines if settings.log_format == "json" else TextLines
    handler.setFormatter(form(secret_texts(settings)))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    for talkative in TALKATIVE:
        logging.getLogger(talkative).setLevel(logging.WARNING)


def secret_texts(settings: Settings) -> list[str]:
    """What must not stand in a log; longer ones first, as they may hold others."""
    found = {*secrets(settings), *_passwords(settings.database_url or "")}
    return sorted((each for each in found if len(each) >= _SHORTEST), key=len, reverse=True)


def _passwords(database: str) -> set[str]:
    """The password of a URL or of a conninfo text, unless it is a word that stands elsewhere in it, too."""
    given = re.search(r"password\s*=\s*('[^']*'|\S+)", database)
    password = given[1].strip("'") if given else urlsplit(database).password or ""
    return {password, unquote(password)} if database.count(password) == 1 else set()


class TextLines(logging.Formatter):
    """Lines for people: `time LEVEL logger [run=… request=…]: message`; only an exception has more lines."""

    def __init__(self, hidden: Iterable[str] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s%(where)s: %(message)s")
        self._hidden = tuple(hidden)

    def formatMessage(self, record: logging.LogRecord) -> str:
        ids = {"run": run_id.get(), "request": request_id.get()}
        told = " ".join(f"{name}={id}" for name, id in ids.items() if id is not None)
        record.where = f" [{told}]" if told else ""
        # A path or an error may hold a line break: nobody outside writes lines of their own into our log.
        record.message = _CONTROL.sub(lambda found: repr(found[0])[1:-1], record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return _without(super().format(record), self._hidden)


class JsonLines(logging.Formatter):
    """Lines for programs: an object each, with `run_id`, `request_id` and `exception` where there are any."""

    def __init__(self, hidden: Iterable[str] = ()) -> None:
        super().__init__()
        self._hidden = tuple(hidden)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _without(record.getMessage(), self._hidden),
        }
        if (run := run_id.get()) is not None:
            line["run_id"] = run
        if (request := request_id.get()) is not None:
            line["request_id"] = request
        if record.exc_info:
            line["exception"] = _without(self.formatException(record.exc_info), self._hidden)
        return msgspec.json.encode(line).decode()


def _without(text: str, hidden: Iterable[str]) -> str:
    for secret in hidden:
        text = text.replace(secret, "***")
    return text.encode(errors="backslashreplace").decode()
