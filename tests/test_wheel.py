"""The wheel holds everything, and what it installs runs a drawing, far from our source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data_dirs import data_directory, left_running

ROOT = Path(__file__).parents[1]
PACKAGES = ("flowserver", "graphs", "nodes", "sql")
NOT_SOURCE = shutil.ignore_patterns(
    ".*_cache", ".venv", ".git", ".flowserver", "__pycache__", "build", "dist"
)
SETTINGS = ("FLOWSERVER_", "OPENAI_", "PYTHON", "VIRTUAL_ENV")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; none of our settings reach it."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(SETTINGS)}
    done = subprocess.run(
        command, cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that the tree stays as other tests need it."""
    folder = tmp_path_factory.mktemp("wheel")
    source, dist = folder / "source", folder / "dist"
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
    run(*(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", dist, source), cwd=folder)
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with data_directory() as folder:
        yield folder


def installed(wheel: Path, folder: Path) -> Path:
    """The programs of a new environment that has `wheel`, and from ours only the dependencies."""
    venv.create(folder, with_pip=False, symlinks=True)
    programs = folder / "bin"
    install = ("install", "--no-deps", "--no-index", "--disable-pip-version-check", wheel)
    run(sys.executable, "-m", "pip", "--python", programs / "python", *install, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A .pth file in a directory that a .pth file names is not read: our editable install stays out.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


def test_the_wheel_holds_the_four_packages_whole_and_nothing_else(wheel: Path) -> None:
    source = wheel.parents[1] / "source"
    expected = {
        str(file.relative_to(source))
        for package in PACKAGES
        for file in (source / package).rglob("*")
        if file.suffix in (".py", ".sql")
    }

    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert held == expected
    assert {"sql/runs.sql", "flowserver/__main__.py"} <= held
    assert any(name.startswith("sql/migrations/") for name in held)


def test_an_installed_wheel_runs_a_drawing_and_leaves_no_postgres_behind(
    wheel: Path, tmp_path: Path, data_dir: Path
) -> None:
    programs = installed(wheel, tmp_path / "env")
    hello = ROOT / "examples" / "hello.json"
    where = "import flowserver, graphs, nodes, sql; print(flowserver.__file__, graphs.__file__)"

    files = run(programs / "python", "-c", where, cwd=tmp_path).split()
    said = run(
        *(programs / "flowserver", "run", hello, "--input", "Ada"),
        cwd=tmp_path,
        FLOWSERVER_DATA_DIR=str(data_dir),
    )

    assert all(Path(file).is_relative_to(tmp_path / "env") for file in files)
    assert said == "Hello, Ada! Your name has 3 letters.\n"
    assert (data_dir / "postgres" / "PG_VERSION").exists()
    assert left_running(data_dir) == []
