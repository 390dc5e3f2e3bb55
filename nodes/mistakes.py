"""Settings that are each as they should be, and wrong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Keys: TypeAlias = tuple[str | int, ...]


class Mistakes(ValueError):
    """What a struct's `__post_init__` raises when it knows every mistake, and where it is.

    A plain `ValueError` says that the struct as a whole is wrong. Before a run, texts still have their
    `{{ … }}`; that is no mistake.
    """

    def __init__(self, found: Sequence[tuple[str, Keys]]) -> None:
        """`found`: each mistake in words, and the keys that lead to it from the struct."""
        self.found = tuple(found)
        super().__init__("; ".join(message for message, _ in found))


def twice(names: Sequence[str]) -> list[int]:
    """The places of those of `names` that were there before."""
    return [at for at, name in enumerate(names) if name in names[:at]]
