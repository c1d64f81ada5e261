"""Runs sequences of any tenants of any loaded base model together on one device.

`Engine.submit` takes `Item`s and gives a future of `Outcome`s. `Pipeline` moves them through the `stages` (tokenise,
fetch, device, finish) on threads of their own; `Scheduler` forms the batches; `decode` generates texts; `memory` keeps
base models, adapters and deltas under budgets. Start reading at `engine`, then `pipeline` and `stages.batches`.
"""

from __future__ import annotations

from hmi.engine.config import EngineConfig, Overlap
from hmi.engine.engine import Engine
from hmi.engine.memory import ModelSource
from hmi.engine.stages import decode_rows
from hmi.engine.trace import STAGES, Span, Tracer

__all__ = ["STAGES", "Engine", "EngineConfig", "ModelSource", "Overlap", "Span", "Tracer", "decode_rows"]
