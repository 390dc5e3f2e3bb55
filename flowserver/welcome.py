"""What a started server says: where it is, which key opens it, and an example at work."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from flowserver.accounts import DEFAULT_ORG, KEY_FILE
from flowserver.assembly import Flowserver
from flowserver.commands import Unreadable, drawing
from flowserver.runs import Start
from flowserver.show import show
from flowserver.workflows import Workflow
from graphs.problems import InvalidWorkflow

logger = logging.getLogger(__name__)


async def greet(flowserver: Flowserver, url: str, examples: Path | None, demo: str | None) -> None:
    """Print how to reach the server; save the examples; run one and print how to call it."""
    print(f"flowserver listens on {url}   (Ctrl-C stops it)")
    if flowserver.new_key:
        print(f"a first API key was made; it is shown this once: {flowserver.new_key}")
    if (key_file := _key_file(flowserver)) is not None:
        print(f"the API key is kept in {key_file}")
    saved = await _save(flowserver, examples) if examples is not None else {}
    if demo is not None and (workflow := saved.get(demo)) is not None:
        await _demonstrate(flowserver, workflow, url, f"$(cat {key_file})" if key_file else "<your key>")
    sys.stdout.flush()


def _key_file(flowserver: Flowserver) -> Path | None:
    file = flowserver.settings.data_dir / KEY_FILE
    return file if file.exists() else None


async def _save(flowserver: Flowserver, folder: Path) -> dict[str, Workflow]:
    """The workflows of `folder` by their files' names; those that are not saved yet are saved."""
    saved: dict[str, Workflow] = {}
    for name, flow_data in _drawings(folder).items():
        known = await flowserver.workflows.find(DEFAULT_ORG, name)
        saved[name] = known or await flowserver.workflows.add(DEFAULT_ORG, name, None, flow_data)
    return saved


def _drawings(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.json")):
        try:
            found[file.stem] = drawing(file)
        except Unreadable as exc:
            logger.warning("example not saved: %s", exc)
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
    run = await flowserver.runs.start(DEFAULT_ORG, start)
    async for events in flowserver.runs.watch(run, 0):
        for event in events:
            print(show(event), flush=True)
    print(
        f"\ncall it yourself:\n\n  curl -N {url}/api/v1/workflows/{workflow.id}/runs \\\n"
        f'    -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\\n'
        f"""    -d '{{"input": "{given}", "mode": "stream"}}'\n"""
    )
