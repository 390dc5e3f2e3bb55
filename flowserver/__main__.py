"""The command line. What a command needs is imported when it runs, so that `--help` is quick."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flowserver.settings import InvalidSetting, listed, load
from flowserver.trigger_options import add_parsers

EPILOG = "Settings come from the environment and .env: see 'flowserver settings'."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the process's exit status."""
    options = parser().parse_args(arguments)
    try:
        with _orderly():
            status = int(options.command(options))
            sys.stdout.flush()
            return status
    except InvalidSetting as exc:
        print(f"flowserver: {exc}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read has gone, as head(1) does; at exit Python would try, and complain, once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


@contextmanager
def _orderly() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP without nohup, unwind like Ctrl-C: else nobody stops the embedded Postgres."""
    known = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    mine = [each for each, handler in known.items() if handler is signal.SIG_DFL]
    for each in mine:
        signal.signal(each, signal.default_int_handler)
    try:
        yield
    finally:
        for each in mine:
            signal.signal(each, signal.SIG_DFL)


def parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    root = argparse.ArgumentParser(
        "flowserver", description="Runs workflows drawn in a visual editor.", epilog=EPILOG
    )
    commands = root.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="start the server", epilog=EPILOG)
    serve.add_argument(
        "--examples", type=_folder, metavar="DIR", help="save the workflows in DIR, if they are not"
    )
    serve.add_argument("--demo", metavar="NAME", help="run this workflow once and show its events")
    serve.add_argument(
        "--no-worker", action="store_true", help="execute no runs here; leave them to 'flowserver worker'"
    )
    serve.set_defaults(command=_serve)

    worker = commands.add_parser(
        "worker", help="execute runs of the queue, without HTTP; start as many as you need", epilog=EPILOG
    )
    worker.set_defaults(command=_worker)

    run = commands.add_parser("run", help="run a drawing without a server", epilog=EPILOG)
    run.add_argument("file", type=Path, help="a drawing as the editor saves it; - for standard input")
    run.add_argument("--input", metavar="TEXT-OR-JSON", help="what the run starts with")
    run.add_argument("--session", metavar="ID", help="continue this session: memories are kept in it")
    run.add_argument("--stream", action="store_true", help="show every event as it comes")
    run.add_argument("--json", action="store_true", help="print the run as JSON; with --stream every event")
    run.set_defaults(command=_run)

    check = commands.add_parser(
        "check", help="name every mistake in a drawing; status 1 if there is an error"
    )
    check.add_argument("file", type=Path, help="a drawing as the editor saves it; - for standard input")
    check.add_argument("--json", action="store_true", help="print the problems and the plan as JSON")
    check.add_argument("--plan", action="store_true", help="say what it would do, too")
    check.set_defaults(command=_check)

    picture = commands.add_parser("picture", help="draw a picture of a drawing, as SVG or Mermaid")
    picture.add_argument("file", type=Path, help="a drawing as the editor saves it; - for standard input")
    picture.add_argument("--mermaid", action="store_true", help="as a Mermaid flowchart")
    picture.add_argument("--output", type=Path, metavar="FILE", help="write it there, not to standard output")
    picture.set_defaults(command=_picture)

    nodes = commands.add_parser("nodes", help="list the node types, or tell what one of them takes and gives")
    nodes.add_argument("type", nargs="?", metavar="TYPE", help="a node type, or words to search for")
    nodes.add_argument("--json", action="store_true", help="print the catalogue's entries as JSON")
    nodes.add_argument("--docs", type=Path, metavar="DIR", help="write a page for each type into DIR")
    nodes.set_defaults(command=_nodes)

    add_parsers(commands, _triggers)

    migrate = commands.add_parser("migrate", help="bring the database up to date", epilog=EPILOG)
    migrate.add_argument(
        "--status",
        action="store_true",
        help="only list what is applied and what is missing; 1 if anything is",
    )
    migrate.set_defaults(command=_migrate)

    settings = commands.add_parser("settings", help="list every setting, its value and where that comes from")
    settings.set_defaults(command=_settings)
    return root


def _folder(path: str) -> Path:
    if not (folder := Path(path)).is_dir():
        raise argparse.ArgumentTypeError(f"{path} is not a directory")
    return folder


def _serve(options: argparse.Namespace) -> int:
    from flowserver.serving import serve  # noqa: PLC0415  starts Postgres before it imports the rest

    return serve(load(), options.examples, options.demo, worker=not options.no_worker)


def _worker(options: argparse.Namespace) -> int:
    from flowserver.working import work  # noqa: PLC0415

    return work(load())


def _run(options: argparse.Namespace) -> int:
    from flowserver.commands import run  # noqa: PLC0415

    return run(
        load(), options.file, options.input, options.session, stream=options.stream, as_json=options.json
    )


def _check(options: argparse.Namespace) -> int:
    from flowserver.commands import check  # noqa: PLC0415

    return check(options.file, as_json=options.json, plan=options.plan)


def _picture(options: argparse.Namespace) -> int:
    from flowserver.commands import picture  # noqa: PLC0415

    return picture(options.file, as_mermaid=options.mermaid, output=options.output)


def _nodes(options: argparse.Namespace) -> int:
    from flowserver.listing import list_nodes, write_pages  # noqa: PLC0415

    if options.docs is not None:
        return write_pages(options.docs)
    return list_nodes(options.type, as_json=options.json)


def _triggers(options: argparse.Namespace) -> int:
    from flowserver.trigger_commands import execute  # noqa: PLC0415

    return execute(load(), options)


def _migrate(options: argparse.Namespace) -> int:
    from flowserver.commands import migrate  # noqa: PLC0415

    return migrate(load(), status=options.status)


def _settings(options: argparse.Namespace) -> int:
    for row in listed():
        print(f"{row.name}={row.value}  ({row.origin})\n    {row.description}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
