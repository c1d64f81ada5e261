"""Where the worker writes in the storage."""

from __future__ import annotations

from dataclasses import dataclass

from hmi.catalog import ClaimedShard

__all__ = ["SHARDS", "ShardPaths", "result_folder", "shard_folder"]

SHARDS = "shards"


def shard_folder(batch_id: str) -> str:
    """Everything that is written for a batch lies here until it is complete; then the folder goes as a whole."""
    return f"{SHARDS}/{batch_id}"


def result_folder(batch_id: str) -> str:
    """The batch's output and error files."""
    return f"results/{batch_id}"


@dataclass(frozen=True, slots=True)
class ShardPaths:
    """Where one attempt writes; no other attempt writes there."""

    output: str
    error: str

    @classmethod
    def of(cls, batch_id: str, shard_id: str, attempt: int) -> ShardPaths:
        stem = f"{shard_folder(batch_id)}/{shard_id}.{attempt}"
        return cls(output=f"{stem}.output.jsonl", error=f"{stem}.error.jsonl")

    @classmethod
    def of_claim(cls, claim: ClaimedShard) -> ShardPaths:
        return cls.of(claim.batch_id, claim.shard_id, claim.attempt)
