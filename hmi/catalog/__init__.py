"""The SQL record of everything: tenants, models, files, batches, jobs, knowledge trees and workers.

Every function gets a session of `Database` and does part of one transaction. Modules are used as namespaces:
`shards.claim(session, ...)`, `trees.publish(session, ...)`. Start with `schema` for the tables, `queue` for how work is
dispatched, claimed and finished, `trees` for versions and counts; `database` connects and migrates.
"""

from __future__ import annotations

from hmi.catalog import batches, finalizing, fine_tuning, nodes, trees
from hmi.catalog.batches import BatchView, InputProblem, NewBatch
from hmi.catalog.database import Database, database_time, execute_dml, is_schema_current, upgrade_schema
from hmi.catalog.fine_tuning import NewTuningJob
from hmi.catalog.queue import (
    ClaimedShard,
    ClaimedTraining,
    JobMessage,
    LineRange,
    ShardResult,
    TrainingResult,
    shards,
    training_events,
    training_results,
    trainings,
)
from hmi.catalog.registry import (
    DeltaView,
    NewFile,
    Principal,
    RegisteredModel,
    bases,
    deltas,
    domains,
    files,
    mint_key,
    models,
    tenants,
)
from hmi.catalog.schema import (
    GENERAL,
    OPEN_BATCH,
    OPERATOR,
    Audience,
    Batch,
    BatchStatus,
    File,
    JobState,
    RegisteredBase,
    Role,
    Shard,
    Tenant,
    TreeStatus,
    TreeVersion,
    TuningJob,
    new_id,
)
from hmi.catalog.trees import (
    ChunkedTransactions,
    FrequencyLimits,
    HitCounts,
    NgramCounts,
    frequencies,
    garbage,
)

__all__ = [
    "GENERAL",
    "OPEN_BATCH",
    "OPERATOR",
    "Audience",
    "Batch",
    "BatchStatus",
    "BatchView",
    "ChunkedTransactions",
    "ClaimedShard",
    "ClaimedTraining",
    "Database",
    "DeltaView",
    "File",
    "FrequencyLimits",
    "HitCounts",
    "InputProblem",
    "JobMessage",
    "JobState",
    "LineRange",
    "NewBatch",
    "NewFile",
    "NewTuningJob",
    "NgramCounts",
    "Principal",
    "RegisteredBase",
    "RegisteredModel",
    "Role",
    "Shard",
    "ShardResult",
    "Tenant",
    "TrainingResult",
    "TreeStatus",
    "TreeVersion",
    "TuningJob",
    "bases",
    "batches",
    "database_time",
    "deltas",
    "domains",
    "execute_dml",
    "files",
    "finalizing",
    "fine_tuning",
    "frequencies",
    "garbage",
    "is_schema_current",
    "mint_key",
    "models",
    "new_id",
    "nodes",
    "shards",
    "tenants",
    "training_events",
    "training_results",
    "trainings",
    "trees",
    "upgrade_schema",
]
