"""Providers' libraries that are installed on demand: `pip install 'flowserver[anthropic]'`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from typing import Any

from nodes.mistakes import Keys


def needs_extra(package: str, extra: str) -> Callable[[Any], Iterator[tuple[str, Keys]]]:
    """What is wrong with a node of a package that is not installed, whatever its settings."""

    def mistakes(config: Any) -> Iterator[tuple[str, Keys]]:
        if not _is_installed(package):
            yield f"this server has no {package!r}; its operator has to install 'flowserver[{extra}]'", ()

    return mistakes


@cache
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None
