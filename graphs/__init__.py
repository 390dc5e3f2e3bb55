"""Saved workflow JSON to LangGraph graph: `spec` -> `resolve` -> `plan` -> `build`. Pure: no I/O here."""
