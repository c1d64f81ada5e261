"""TODO"""

from __future__ import annotations

from hmi.engine.config import EngineConfig, Overlap, resolve_lanes
from hmi.engine.dequantise import decode_rows
from hmi.engine.engine import Engine
from hmi.engine.hosted import ModelSource
from hmi.engine.overlap import busy_share, hidden_share, intervals, length, union
from hmi.engine.trace import STAGES, Span, Tracer

__all__ = [
    "STAGES",
    "Engine",
    "EngineConfig",
    "ModelSource",
    "Overlap",
    "Span",
    "Tracer",
    "busy_share",
    "decode_rows",
    "hidden_share",
    "intervals",
    "length",
    "resolve_lanes",
    "union",
]
