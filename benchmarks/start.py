"""How soon a server on a warm data directory is ready, and what it takes while idle.

    .venv/bin/python benchmarks/start.py [--rounds 5]

Each round starts `flowserver serve` with its embedded Postgres, as a process of its own, asks `/health/ready`
until it says so, waits until the first example has run, reads the memory of the Python process from
/proc/PID/smaps_rollup (Linux), and stops it. The first round makes the data directory and is not counted.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # Postgres may have to run as another user
        measure(Path(folder) / "data")
        found = [measure(Path(folder) / "data") for _ in range(rounds)]
    for name, unit, values in zip(
        ("ready", "first event", "memory (RSS)", "memory (PSS)"),
        ("s", "s", "MB", "MB"),
        zip(*found, strict=True),
        strict=True,
    ):
        print(
            f"{name:<14} {statistics.median(values):7.2f} {unit:<3} ({min(values):.2f} to {max(values):.2f})"
        )


def measure(data_dir: Path) -> tuple[float, float, float, float]:
    """Seconds to ready, seconds to the first streamed event, and RSS and PSS in MB."""
    environment = os.environ | {
        "FLOWSERVER_DATA_DIR": str(data_dir),
        "FLOWSERVER_PORT": "18731",
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "flowserver", "serve", "--examples", "examples", "--demo", "hello"]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = wait_until_ready("http://127.0.0.1:18731/health/ready") - began
        first = next(time.perf_counter() for line in process.stdout if "run.created" in line) - began
        next(line for line in process.stdout if "run.succeeded" in line)
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        rss, pss = (kilobytes(rollup, name) / 1000 for name in ("Rss", "Pss"))
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()
    return ready, first, rss, pss


def wait_until_ready(url: str) -> float:
    deadline = time.perf_counter() + 60
    while time.perf_counter() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return time.perf_counter()
        except (urllib.error.URLError, OSError):
            time.sleep(0.005)
    raise TimeoutError(url)


def kilobytes(rollup: str, name: str) -> int:
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
