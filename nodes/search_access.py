"""The door to web search: which search service the operator pays for, if any."""

from __future__ import annotations

from dataclasses import dataclass

TAVILY = "https://api.tavily.com"


@dataclass(frozen=True, slots=True)
class SearchAccess:
    """What a web search uses where the drawing leaves it out."""

    tavily_api_key: str | None = None
    """Only ever sent to `tavily_base_url`."""
    tavily_base_url: str = TAVILY
