"""HMI: multi-tenant inference for fine-tuned pretrained language models.

`from hmi import Engine, EngineConfig, Item, ModelRef` is what a program needs to run many tenants' models in its own
process. The names are loaded when they are first used, so that `import hmi` costs nothing and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hmi.engine import Engine, EngineConfig, ModelSource
    from hmi.errors import HmiError
    from hmi.items import (
        Classification,
        Embedding,
        Generation,
        GenerationParams,
        Item,
        ModelRef,
        Outcome,
        Sampling,
        Tagging,
        Task,
    )
    from hmi.spec import HPLMSpec, MissPolicy

__all__ = [
    "Classification",
    "Embedding",
    "Engine",
    "EngineConfig",
    "Generation",
    "GenerationParams",
    "HPLMSpec",
    "HmiError",
    "Item",
    "MissPolicy",
    "ModelRef",
    "ModelSource",
    "Outcome",
    "Sampling",
    "Tagging",
    "Task",
]

_HOMES = {
    "hmi.engine": ("Engine", "EngineConfig", "ModelSource"),
    "hmi.errors": ("HmiError",),
    "hmi.spec": ("HPLMSpec", "MissPolicy"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'hmi' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, "hmi.items")), name)
