"""TODO"""

from __future__ import annotations

from worker.shards import shard
from worker.shards.dispatching import dispatch
from worker.shards.finalize import finalize_if_last
from worker.shards.places import SHARDS, result_folder, shard_folder
from worker.shards.poison_lines import isolate_exhausted

__all__ = ["SHARDS", "dispatch", "finalize_if_last", "isolate_exhausted", "result_folder", "shard", "shard_folder"]
