"""The demonstration behind `hmi demo`: the whole system once, with real models and real text.

Start with `run`, then read `classify` (tenants of a BERT) or `chat` (tenants of a Llama): each is a story in steps.
After the start of the services everything goes through public interfaces: the `openai` client for files and batches,
`hmi.cli.client` for management.
"""

from __future__ import annotations

from examples.demo.run import run_demo

__all__ = ["run_demo"]
