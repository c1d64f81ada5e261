"""The tables, as SQLAlchemy classes, and the enums of their columns.

Times are Unix seconds by the database's clock. Ids are a short prefix and 128 random bits in hex (`batch_5f...`).
 Start with `jobs` for queued work, `trees` for knowledge trees; `migrations/` creates the schema.
"""

from __future__ import annotations

from hmi.catalog.schema.base import Base, new_id
from hmi.catalog.schema.batches import OPEN_BATCH, Batch, BatchStatus, File, Shard
from hmi.catalog.schema.fine_tuning import EventLevel, EventType, TuningEvent, TuningJob
from hmi.catalog.schema.jobs import OPEN_JOB, WAITING_JOB, JobState, QueuedJob
from hmi.catalog.schema.models import GENERAL, AdapterRevision, Domain, DomainDelta, RegisteredBase, TenantModel
from hmi.catalog.schema.nodes import ScheduleTick, WorkerNode
from hmi.catalog.schema.tenancy import OPERATOR, ApiKey, Role, Tenant
from hmi.catalog.schema.trees import FrequencyPlace, NgramFrequency, TreeStatus, TreeUsage, TreeVersion

__all__ = [
    "GENERAL",
    "OPEN_BATCH",
    "OPEN_JOB",
    "OPERATOR",
    "WAITING_JOB",
    "AdapterRevision",
    "ApiKey",
    "Base",
    "Batch",
    "BatchStatus",
    "Domain",
    "DomainDelta",
    "EventLevel",
    "EventType",
    "File",
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
