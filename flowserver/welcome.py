"""What a started server says: where it is, which key opens it, and an example at work."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Any

from flowserver.accounts import DEFAULT_ORG, KEY_FILE
from flowserver.assembly import Flowserver
from flowserver.commands import Unreadable, drawing
from flowserver.errors import NotAuthenticated
from flowserver.settings import variable
from flowserver.show import show
from flowserver.starts import Start
from flowserver.workflows import Workflow
from graphs.problems import InvalidWorkflow

logger = logging.getLogger(__name__)


async def greet(flowserver: Flowserver, url: str, examples: Path | None, demo: str | None) -> None:
    """Print how to reach the server; save the examples; run one and print how to call it."""
    print(f"flowserver listens on {url}   (Ctrl-C stops it)")
    if flowserver.new_key:
        print(f"a first API key was made; it is shown this once: {flowserver.new_key}")
    if (key_file := await _key_file(flowserver)) is not None:
        print(f"the API key is kept in {key_file}")
    sys.stdout.flush()
    if examples is not None:
        await _save(flowserver, examples)
    if demo is not None and (workflow := await flowserver.workflows.find(DEFAULT_ORG, demo)) is not None:
        await _demonstrate(flowserver, workflow, url, _key_in_shell(flowserver, key_file))
    elif demo is not None:
        logger.warning("no demo: no workflow is called %r", demo)
    sys.stdout.flush()


async def _key_file(flowserver: Flowserver) -> Path | None:
    """The file of the made key, if it opens this server: it may be that of another database."""
    file = flowserver.settings.data_dir / KEY_FILE
    try:
        await flowserver.accounts.authenticate(file.read_text("utf-8").strip())
    except (OSError, ValueError, NotAuthenticated):
        return None
    return file


def _key_in_shell(flowserver: Flowserver, key_file: Path | None) -> str:
    """The key as a shell finds it, so that the line can be copied."""
    if key_file is not None:
        return f"$(cat {shlex.quote(str(key_file.resolve()))})"
    return f"${variable('api_key')}" if flowserver.settings.api_key else "<your key>"


async def _save(flowserver: Flowserver, folder: Path) -> None:
    """Save the workflows of `folder` under their files' names, unless those are taken."""
    for name, flow_data in _drawings(folder).items():
        if await flowserver.workflows.find(DEFAULT_ORG, name) is None:
            await flowserver.workflows.add(DEFAULT_ORG, name, None, flow_data)


def _drawings(folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("*.json")):
        try:
            flow_data = drawing(file)
        except Unreadable as exc:
            logger.warning("example not saved: %s", exc)
            continue
        if isinstance(flow_data, dict):
            found[file.stem] = flow_data
        else:
            logger.warning("example not saved: %s holds no drawing, which is an object", file)
    return found


async def _demonstrate(flowserver: Flowserver, workflow: Workflow, url: str, key: str) -> None:
    given = "Ada"
    print(f"\nrunning the workflow {workflow.name!r} with the input {given!r}:")
    try:
        compiled = flowserver.compiler.compile(workflow.flow_data)
    except InvalidWorkflow as exc:
        print(exc)
        return
    start = Start(compiled=compiled, workflow_id=workflow.id, input=given, kind="demo")
    run = (await flowserver.runs.start(DEFAULT_ORG, start)).id
    async for events in flowserver.runs.watch(run, 0):
        for event in events:
            print(show(event), flush=True)
    print(
        f"\ncall it yourself:\n\n  curl -N {url}/api/v1/workflows/{workflow.id}/runs \\\n"
        f'    -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\\n'
        f"""    -d '{{"input": "{given}", "mode": "stream"}}'\n"""
    )
