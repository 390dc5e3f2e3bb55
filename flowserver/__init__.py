"""The server: everything that does I/O."""

from __future__ import annotations

import os

# LangGraph reads it when first imported: without it a checkpoint row can name code to run (CVE-2026-28277).
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
