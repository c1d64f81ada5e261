"""TODO"""

from __future__ import annotations

from hmi.engine.decode.cache import pool_size
from hmi.engine.decode.loop import DecodeLoop
from hmi.engine.decode.loops import DecodeLoops
from hmi.engine.decode.scheduler import SchedulerLimits

__all__ = ["DecodeLoop", "DecodeLoops", "SchedulerLimits", "pool_size"]
