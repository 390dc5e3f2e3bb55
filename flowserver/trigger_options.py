"""What `flowserver webhooks` and `flowserver schedules` take on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any
from uuid import UUID


def add_parsers(commands: Any, run: Callable[[argparse.Namespace], int]) -> None:
    """Add both commands with all that they can do; `run` is called with what was typed."""
    webhooks = commands.add_parser("webhooks", help="list, make, open, close and look into webhooks")
    of = webhooks.add_subparsers(required=True, metavar="WHAT")
    _list(of, run, "webhooks")
    _one(of, run, "show", "webhook", "show one, with its addresses")
    add = _command(of, run, "add", "add_webhook", "make one that starts a workflow")
    _target(add)
    add.add_argument("--path", help="what its address ends with; left out, one is made")
    add.add_argument("--method", action="append", metavar="METHOD", help="POST, or others, several times")
    add.add_argument(
        "--authentication", default="none", help="none, bearer, basic, header, hmac, standard, github …"
    )
    add.add_argument("--header", help="the header of the token or signature")
    add.add_argument("--secret", help="left out, one is made where it is needed")
    rotate = _one(of, run, "rotate", "rotate", "give one another secret, and show that")
    rotate.add_argument("--secret", help="left out, one is made")
    rotate.add_argument("--overlap", type=float, default=86_400, metavar="SECONDS", help="old ones count")
    _one(of, run, "enable", "enable", "open one")
    _one(of, run, "disable", "disable", "close one")
    _one(of, run, "delete", "delete_webhook", "delete one with its deliveries")
    deliveries = _one(of, run, "deliveries", "deliveries", "list what has arrived")
    deliveries.add_argument("--status", choices=("accepted", "dead"), help="only these")
    again = _one(of, run, "redeliver", "redeliver", "deliver something again")
    again.add_argument("delivery", type=UUID, help="the id of the delivery")

    schedules = commands.add_parser("schedules", help="list, make, pause and fire schedules")
    of = schedules.add_subparsers(required=True, metavar="WHAT")
    _list(of, run, "schedules")
    _one(of, run, "show", "schedule", "show one, with its next firings")
    add = _command(of, run, "add", "add_schedule", "make one that starts a workflow")
    _target(add)
    when = add.add_mutually_exclusive_group(required=True)
    when.add_argument("--cron", metavar="EXPRESSION", help="five fields, as in '0 9 * * 1-5'")
    when.add_argument("--every", type=float, metavar="SECONDS")
    when.add_argument("--once", metavar="INSTANT", help="as in 2027-01-31T09:00")
    add.add_argument("--timezone", default="UTC", help="as in Europe/Berlin")
    add.add_argument("--overlap", default="allow", help="allow, skip, queue or cancel_previous")
    add.add_argument("--misfire", default="coalesce", help="coalesce, skip or all")
    add.add_argument("--input", metavar="TEXT-OR-JSON", help="what its runs start with")
    _one(of, run, "pause", "pause", "let one rest")
    _one(of, run, "resume", "resume", "let one fire again")
    _one(of, run, "trigger", "trigger", "fire one now")
    _one(of, run, "firings", "firings", "list what has fired")
    _one(of, run, "delete", "delete_schedule", "delete one")


def _command(of: Any, run: Any, name: str, doing: str, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = of.add_parser(name, help=help)
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.set_defaults(command=run, doing=doing)
    return parser


def _list(of: Any, run: Any, doing: str) -> None:
    parser = _command(of, run, "list", doing, "list them")
    parser.add_argument("--workflow", metavar="ID-OR-NAME", help="only those of a workflow")


def _one(of: Any, run: Any, name: str, doing: str, help: str) -> argparse.ArgumentParser:
    parser = _command(of, run, name, doing, help)
    parser.add_argument("id", type=UUID, help="its id")
    return parser


def _target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workflow", metavar="WORKFLOW", help="the id or name of the workflow")
    parser.add_argument("--step", help="the trigger that its runs start with")
