"""The HTTP layer: thin handlers under `/api/v1`, one table of problems, server-sent events."""
