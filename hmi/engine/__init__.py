"""TODO"""

from __future__ import annotations

from hmi.engine.config import EngineConfig, Overlap, resolve_device_threads
from hmi.engine.dequantise import decode_rows
from hmi.engine.engine import Engine
from hmi.engine.hosted import ModelSource
from hmi.engine.trace import STAGES, Span, Tracer

__all__ = [
    "STAGES",
    "Engine",
    "EngineConfig",
    "ModelSource",
    "Overlap",
    "Span",
    "Tracer",
    "decode_rows",
    "resolve_device_threads",
]
