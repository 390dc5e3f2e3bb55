"""The package that docs/adding-a-node.md shows can be built, installed, drawn and run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nodes import registry
from nodes.catalogue import Catalogue
from nodes.pages import pages
from tests.server import ROOT, drawing, edge, node

GUIDE = (ROOT / "docs/adding-a-node.md").read_text()


def block(language: str) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.M | re.S)[0]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the guide's package in it, as pip installs it."""
    source, target = tmp_path_factory.mktemp("acme"), tmp_path_factory.mktemp("site")
    (source / "acme_nodes/texts").mkdir(parents=True)
    (source / "pyproject.toml").write_text(block("toml"))
    (source / "acme_nodes/__init__.py").write_text("")
    (source / "acme_nodes/texts/__init__.py").write_text("")
    (source / "acme_nodes/texts/shout.py").write_text(block("python"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    pip += ["--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run(pip, check=True, timeout=80, stdout=subprocess.DEVNULL)
    return target


def flowserver(installed: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FLOWSERVER_")}
    paths = os.pathsep.join([str(installed), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "flowserver", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**kept, "PYTHONPATH": paths, **environment},
    )


def test_an_installed_package_is_in_the_catalogue(installed: Path) -> None:
    done = flowserver(installed, "nodes", "acme.shout", "--json")

    entry: dict[str, Any] = json.loads(done.stdout)
    assert (entry["title"], entry["category"], entry["icon"]) == ("Shout", "texts", "megaphone")
    assert entry["description"] == "Say a text loudly."
    assert entry["config"]["properties"]["marks"]["maximum"] == 10
    assert [each["name"] for each in entry["outputs"]] == ["text", "length"]


def test_a_workflow_with_it_is_checked_and_runs(installed: Path, dsn: str, tmp_path: Path) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("shout", "acme.shout", exclamation_marks="{{ input | length }}"),
        edge("start", "shout"),
    )
    wrong = drawing(node("shout", "acme.shout", marks=11))
    (tmp_path / "flow.json").write_text(json.dumps(flow))
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))

    checked = flowserver(installed, "check", str(tmp_path / "wrong.json"))
    done = flowserver(
        installed,
        "run",
        str(tmp_path / "flow.json"),
        "--input",
        "hey",
        FLOWSERVER_DATABASE_URL=dsn,
        FLOWSERVER_DATA_DIR=str(tmp_path),
    )

    assert "'marks' is 11; allowed is a whole number from 0 to 10" in checked.stdout
    assert (done.returncode, done.stdout) == (0, "HEY!!!\n"), done.stderr


def test_the_pages_of_the_node_types_are_what_their_types_say() -> None:
    made = pages(Catalogue(registry.discover()))
    written = {each.name: each.read_text() for each in (ROOT / "docs/nodes").glob("*.md")}

    stale = sorted(name for name in made.keys() | written.keys() if made.get(name) != written.get(name))
    assert stale == []  # `make docs-nodes` writes them


def test_a_page_names_every_setting_port_and_spelling_of_a_type() -> None:
    catalogue = Catalogue(registry.discover())
    made = pages(catalogue)

    for entry in catalogue.entries:
        names = [*entry.config["properties"], *entry.aliases]
        names += [port.name for port in (*entry.inputs, *entry.bindings, *entry.outputs)]
        names += [also for each in entry.config["properties"].values() for also in each.get("x-also", ())]
        assert [each for each in names if f"`{each}`" not in made[f"{entry.name}.md"]] == []


def test_a_command_lists_types_tells_of_one_and_searches(installed: Path) -> None:
    listed = flowserver(installed, "nodes")
    one = flowserver(installed, "nodes", "SortNode")
    none = flowserver(installed, "nodes", "sorting lists")

    assert "Texts\n  acme.shout" in listed.stdout
    assert one.stdout.startswith("# Sort a list\n\nPut the items of a list in order")
    assert (none.returncode, none.stdout) == (1, "")
    assert none.stderr.startswith("flowserver: there is no node type 'sorting lists'\n")


def test_pages_of_types_that_are_gone_are_removed_and_nothing_else(installed: Path, tmp_path: Path) -> None:
    first = flowserver(installed, "nodes", "--docs", str(tmp_path))
    (tmp_path / "mine.md").write_text("# My own")
    known = sorted(each.name for each in tmp_path.glob("*.md"))

    again = flowserver(tmp_path, "nodes", "--docs", str(tmp_path))

    assert (first.returncode, again.returncode) == (0, 0)
    left = sorted(each.name for each in tmp_path.glob("*.md"))
    assert set(known) - set(left) == {"acme.shout.md"}
    assert (tmp_path / "mine.md").read_text() == "# My own"


def test_a_folder_that_cannot_be_written_is_told(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    done = flowserver(installed, "nodes", "--docs", str(tmp_path / "file"))

    assert done.returncode == 2
    assert done.stderr.startswith("flowserver: ")
