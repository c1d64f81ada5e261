"""The stages that a batch passes, each a function from one frozen value to the next.

`tokenise` makes a `SequenceTask` of each item. `Fetcher.fetch` makes a `StagedBatch` of a `PlannedBatch`: it pins
adapters, looks windows up (`lookup`, `window_rows`) and copies tensors. `DeviceRunner.run` makes a `ComputedBatch` of
that, and `finish` settles its tasks. Start reading at `batches`.
"""

from __future__ import annotations

from hmi.engine.stages.batches import ComputedBatch, PlannedBatch, StagedBatch
from hmi.engine.stages.dequantise import decode_rows
from hmi.engine.stages.device import DeviceRunner
from hmi.engine.stages.fetch import Fetcher
from hmi.engine.stages.layout import BatchLayout
from hmi.engine.stages.outcomes import finish, keep_rows
from hmi.engine.stages.tokenisation import tokenise

__all__ = [
    "BatchLayout",
    "ComputedBatch",
    "DeviceRunner",
    "Fetcher",
    "PlannedBatch",
    "StagedBatch",
    "decode_rows",
    "finish",
    "keep_rows",
    "tokenise",
]
