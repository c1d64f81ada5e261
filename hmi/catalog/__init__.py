"""TODO"""

from __future__ import annotations

from hmi.catalog import (
    bases,
    batches,
    deltas,
    domains,
    files,
    finalizing,
    frequencies,
    leftovers,
    migrate,
    models,
    nodes,
    ranking,
    shards,
    tenants,
    ticks,
    trees,
)
from hmi.catalog.bases import register_base
from hmi.catalog.batches import BatchView, NewShard
from hmi.catalog.chunks import ChunkedTransactions
from hmi.catalog.database import Database, change, clock
from hmi.catalog.deltas import DeltaView
from hmi.catalog.domains import DomainView, create_domain
from hmi.catalog.finalizing import NewFile
from hmi.catalog.frequencies import Counts
from hmi.catalog.keys import mint_key
from hmi.catalog.migrate import is_current, upgrade
from hmi.catalog.models import ServedModel, resolve
from hmi.catalog.shards import ClaimedShard, ShardMessage, ShardResult
from hmi.catalog.states import OPEN_BATCH
from hmi.catalog.tables import (
    GENERAL,
    OPERATOR,
    ApiKey,
    BaseModel,
    Batch,
    BatchStatus,
    File,
    Role,
    Shard,
    Tenant,
    TreeStatus,
    TreeVersion,
    WorkerNode,
    new_id,
)
from hmi.catalog.tenants import Principal, adopt_key, get_tenant
from hmi.catalog.trees import Usage, versions
from hmi.catalog.trimming import Limits, trim, trim_in_turn
from hmi.catalog.tuning_tables import EventLevel, EventType, TuningEvent, TuningJob, TuningState

__all__ = [
    "GENERAL",
    "OPEN_BATCH",
    "OPERATOR",
    "ApiKey",
    "BaseModel",
    "Batch",
    "BatchStatus",
    "BatchView",
    "ChunkedTransactions",
    "ClaimedShard",
    "Counts",
    "Database",
    "DeltaView",
    "DomainView",
    "EventLevel",
    "EventType",
    "File",
    "Limits",
    "NewFile",
    "NewShard",
    "Principal",
    "Role",
    "ServedModel",
    "Shard",
    "ShardMessage",
    "ShardResult",
    "Tenant",
    "TreeStatus",
    "TreeVersion",
    "TuningEvent",
    "TuningJob",
    "TuningState",
    "Usage",
    "WorkerNode",
    "adopt_key",
    "bases",
    "batches",
    "change",
    "clock",
    "create_domain",
    "deltas",
    "domains",
    "files",
    "finalizing",
    "frequencies",
    "get_tenant",
    "is_current",
    "leftovers",
    "migrate",
    "mint_key",
    "models",
    "new_id",
    "nodes",
    "ranking",
    "register_base",
    "resolve",
    "shards",
    "tenants",
    "ticks",
    "trees",
    "trim",
    "trim_in_turn",
    "upgrade",
    "versions",
]
