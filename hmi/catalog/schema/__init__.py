"""The tables, as SQLAlchemy classes, and the enums of their columns.

Times are Unix seconds by the database's clock. Ids are a short prefix and 128 random bits in hex (`batch_5f...`).
Start with `jobs` for queued work, `trees` for knowledge trees; `migrations/` creates the schema.
"""

from __future__ import annotations

from hmi.catalog.schema.base import Base, new_id
from hmi.catalog.schema.jobs import (
    OPEN_BATCH,
    OPEN_JOB,
    Batch,
    BatchStatus,
    EventLevel,
    EventType,
    JobState,
    QueuedJob,
    ScheduleTick,
    Shard,
    TuningEvent,
    TuningJob,
    WorkerNode,
)
from hmi.catalog.schema.registry import (
    GENERAL,
    OPERATOR,
    AdapterRevision,
    ApiKey,
    Audience,
    Domain,
    DomainDelta,
    DomainTenant,
    File,
    ForgottenTenant,
    RegisteredBase,
    Role,
    Tenant,
    TenantModel,
)
from hmi.catalog.schema.trees import FrequencyPlace, NgramFrequency, TreeStatus, TreeUsage, TreeVersion

__all__ = [
    "GENERAL",
    "OPEN_BATCH",
    "OPEN_JOB",
    "OPERATOR",
    "AdapterRevision",
    "ApiKey",
    "Audience",
    "Base",
    "Batch",
    "BatchStatus",
    "Domain",
    "DomainDelta",
    "DomainTenant",
    "EventLevel",
    "EventType",
    "File",
    "ForgottenTenant",
    "FrequencyPlace",
    "JobState",
    "NgramFrequency",
    "QueuedJob",
    "RegisteredBase",
    "Role",
    "ScheduleTick",
    "Shard",
    "Tenant",
    "TenantModel",
    "TreeStatus",
    "TreeUsage",
    "TreeVersion",
    "TuningEvent",
    "TuningJob",
    "WorkerNode",
    "new_id",
]
