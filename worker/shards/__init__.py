"""Batches: their shards are run one at a time, and their result files are put together at the end.

Start with `ShardRunner`, the `worker.job_runner.JobRunner` of shards. `answers` reads a shard's lines, submits them to
the engine and writes one answer for each; `monitor` ends it early; `poison_lines` splits shards that keep failing;
`finalize` publishes the batch's files when its last shard is done.
"""

from __future__ import annotations

from worker.shards.finalize import finalize_if_last
from worker.shards.poison_lines import split_exhausted
from worker.shards.runner import ShardRunner

__all__ = ["ShardRunner", "finalize_if_last", "split_exhausted"]
