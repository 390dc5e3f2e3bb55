"""The query of a request: parameters that its route does not know are refused, and what is no text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, get_args, get_type_hints
from urllib.parse import parse_qsl

from litestar.connection import ASGIConnection
from litestar.exceptions import ClientException
from litestar.params import QueryParameter

_MOST_PARAMETERS = 100


def check_query(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """
    Raises:
        ClientException: There is a parameter that the route does not take, one is there twice, or one holds
            what is no text.
    """
    query: bytes = connection.scope["query_string"]
    handler = connection.scope.get("route_handler")
    if not query or handler is None:
        return
    allowed = _parameters(handler.fn)
    seen: set[str] = set()
    for name, value in _pairs(query):
        if name not in allowed:
            raise ClientException(_unknown(name, allowed))
        if name in seen:
            raise ClientException(f"the query has {name!r} more than once")
        if "\x00" in value:
            raise ClientException(f"{name!r} in the query holds U+0000, which no text can hold here")
        seen.add(name)


@cache
def _parameters(handler: Callable[..., Any]) -> tuple[str, ...]:
    """The query parameters that a handler takes."""
    return tuple(
        meta.name or argument
        for argument, hint in get_type_hints(handler, include_extras=True).items()
        for meta in get_args(hint)[1:]
        if isinstance(meta, QueryParameter)
    )


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS
        )
    except UnicodeDecodeError:
        raise ClientException("the query is not UTF-8 where its '%' are resolved") from None
    except ValueError:
        raise ClientException(f"the query has more than {_MOST_PARAMETERS} parameters") from None


def _unknown(name: str, allowed: tuple[str, ...]) -> str:
    return f"there is no query parameter {name[:100]!r} here{instead(name, allowed)}"


def instead(name: str, allowed: Sequence[str]) -> str:
    """The end of a message about an unknown name: the nearest one that is allowed, and all of them."""
    if not allowed:
        return "; none is allowed"
    near = get_close_matches(name[:100], allowed, n=1)
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" allowed: {', '.join(allowed)}"
