"""Code fences around what models and people were asked for: their content, whatever it holds itself."""

from __future__ import annotations

BOM = "\ufeff"


def unfenced(text: str) -> str:
    """`text` without the white space, byte order mark and fence that are around all of it.

    Backticks inside are left alone: a fence begins with the first line and ends with the last one.
    """
    whole = text.strip().removeprefix(BOM).strip()
    first, _, rest = whole.partition("\n")
    fence = _opening(first)
    if not fence or not rest:
        return whole
    body = rest.rstrip()
    if not body.endswith(fence):
        return whole
    return body[: -len(fence)].rstrip("`" if fence[0] == "`" else "~").strip()


def inner_fence(text: str) -> str | None:
    """The content of the only fence in a text that says more; `None` if there is none, or several.

    The fence ends with the last line that ends one: a fence inside the content is part of it.
    """
    lines = text.splitlines()
    begins = next((at for at, line in enumerate(lines) if _opening(line)), None)
    if begins is None:
        return None
    fence = _opening(lines[begins])
    ends = [at for at in range(begins + 1, len(lines)) if lines[at].strip() == fence]
    named = [at for at in range(begins + 1, len(lines)) if _opening(lines[at]) and lines[at].strip() != fence]
    if len(ends) != 1 or named:
        return None
    return "\n".join(lines[begins + 1 : ends[0]])


def _opening(line: str) -> str:
    """The fence that a line opens: three or more backticks or tildes, and perhaps a language."""
    bare = line.strip()
    for sign in "`~":
        language = bare.lstrip(sign)
        fence = bare[: len(bare) - len(language)]
        if len(fence) >= 3 and sign not in language and len(language.split()) <= 1:
            return fence
    return ""
