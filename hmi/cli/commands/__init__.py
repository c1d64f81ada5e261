"""TODO"""

from __future__ import annotations

from hmi.cli.commands import (
    base,
    batch,
    bench,
    build,
    database,
    demo,
    domain,
    key,
    model,
    status,
    tenant,
    train,
    tree,
    tune,
    up,
)

__all__ = [
    "base",
    "batch",
    "bench",
    "build",
    "database",
    "demo",
    "domain",
    "key",
    "model",
    "status",
    "tenant",
    "train",
    "tree",
    "tune",
    "up",
]
