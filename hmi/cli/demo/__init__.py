"""`hmi demo`: the whole system once, on this machine, with real models and real text.

Everything after the start of the services goes through public interfaces: the API with the `openai` client
for files and batches, and `hmi.cli.client.client` for management."""

from __future__ import annotations

__all__ = []
