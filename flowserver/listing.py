"""`flowserver nodes`: the catalogue on the command line, and the pages of the documentation."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from nodes import registry
from nodes.catalogue import Catalogue, Entry
from nodes.pages import WRITTEN, page, pages

OK, FAILED, REFUSED = 0, 1, 2


def list_nodes(name: str | None, *, as_json: bool) -> int:
    """Print every type, or all about one; 1 if there is none of that name, with what a search has found."""
    catalogue = Catalogue(registry.discover())
    if name is None:
        print(_json(catalogue.entries) if as_json else _listed(catalogue))
        return OK
    entry = catalogue.get(name)
    if entry is None:
        print(f"flowserver: there is no node type {name!r}", file=sys.stderr)
        for found in catalogue.search(name)[:10]:
            print(f"  {found.name}: {found.description}", file=sys.stderr)
        return FAILED
    print(_json(entry) if as_json else page(entry).removeprefix(WRITTEN).strip())
    return OK


def write_pages(folder: Path) -> int:
    """Write a page for each type into `folder`; pages of types that are gone are removed."""
    made = pages(Catalogue(registry.discover()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            (folder / name).write_text(text, encoding="utf-8")
        for old in folder.glob("*.md"):
            if old.name not in made and old.read_text(encoding="utf-8").startswith(WRITTEN):
                old.unlink()
    except OSError as exc:
        print(f"flowserver: {folder}: {exc.strerror}", file=sys.stderr)
        return REFUSED
    print(f"{len(made)} pages in {folder}")
    return OK


def _listed(catalogue: Catalogue) -> str:
    width = max(len(each.name) for each in catalogue.entries)
    known = {each.name: each for each in catalogue.entries}
    return "\n\n".join(
        "\n".join(
            [category.title, *(f"  {name:<{width}}  {known[name].description}" for name in category.types)]
        )
        for category in catalogue.categories
    )


def _json(value: Entry | tuple[Entry, ...]) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode()
