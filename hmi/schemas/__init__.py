"""The HTTP and batch-line contract in pydantic: request bodies, which are strict, and response bodies.

The API declares its endpoints with these models, workers read the bodies in batch lines with `parse_line` and
`parse_body`, and the CLI reads answers with the response models. Start at `base`, then `lines` and `inference`.
`validation` turns pydantic's errors into `InvalidInput`.
"""

from __future__ import annotations

from hmi.schemas.administration import (
    Health,
    ModelObject,
    NodeObject,
    Readiness,
    TenantModelObject,
)
from hmi.schemas.base import NAME_PATTERN, Deleted, ErrorResponse, Listing, Page, ResponseModel
from hmi.schemas.batches import BatchCreate, BatchObject, FileDeleted, FileObject, RequestCounts
from hmi.schemas.fine_tuning import EventObject, Hyperparameters, JobCreate, JobObject, TuningOptions
from hmi.schemas.generation import DEFAULT_MAX_TOKENS, MAX_CHOICES, NO_LIMIT, ChatRequest, GenerationRequest
from hmi.schemas.inference import TRUNCATE_TO_MODEL, Chat, EmbeddingRequest, InferenceRequest
from hmi.schemas.knowledge import (
    AudienceChange,
    BaseObject,
    DeltaObject,
    DomainChange,
    DomainCreate,
    DomainObject,
    FrequenciesCounted,
    FrequenciesCreate,
    FrequenciesPublish,
    FrequenciesPublished,
)
from hmi.schemas.lines import CHAT, COMPLETIONS, ENDPOINTS, BatchLine, Limits, parse_body, parse_line, read_lines
from hmi.schemas.tenants import (
    KeptVersion,
    KeyCreate,
    KeyObject,
    NewKeyObject,
    OwnTenantChange,
    TenantChange,
    TenantCreate,
    TenantDeleted,
    TenantObject,
    TenantPurge,
)
from hmi.schemas.trees import (
    DomainDiffObject,
    DomainTableObject,
    NgramObject,
    NgramPage,
    NgramText,
    RebuildRequested,
    Rollback,
    TreeBuild,
    TreeDiffObject,
    TreeObject,
    TreeProgress,
    TreeVersionObject,
)
from hmi.schemas.validation import invalid_input

__all__ = [
    "CHAT",
    "COMPLETIONS",
    "DEFAULT_MAX_TOKENS",
    "ENDPOINTS",
    "MAX_CHOICES",
    "NAME_PATTERN",
    "NO_LIMIT",
    "TRUNCATE_TO_MODEL",
    "AudienceChange",
    "BaseObject",
    "BatchCreate",
    "BatchLine",
    "BatchObject",
    "Chat",
    "ChatRequest",
    "Deleted",
    "DeltaObject",
    "DomainChange",
    "DomainCreate",
    "DomainDiffObject",
    "DomainObject",
    "DomainTableObject",
    "EmbeddingRequest",
    "ErrorResponse",
    "EventObject",
    "FileDeleted",
    "FileObject",
    "FrequenciesCounted",
    "FrequenciesCreate",
    "FrequenciesPublish",
    "FrequenciesPublished",
    "GenerationRequest",
    "Health",
    "Hyperparameters",
    "InferenceRequest",
    "JobCreate",
    "JobObject",
    "KeptVersion",
    "KeyCreate",
    "KeyObject",
    "Limits",
    "Listing",
    "ModelObject",
    "NewKeyObject",
    "NgramObject",
    "NgramPage",
    "NgramText",
    "NodeObject",
    "OwnTenantChange",
    "Page",
    "Readiness",
    "RebuildRequested",
    "RequestCounts",
    "ResponseModel",
    "Rollback",
    "TenantChange",
    "TenantCreate",
    "TenantDeleted",
    "TenantModelObject",
    "TenantObject",
    "TenantPurge",
    "TreeBuild",
    "TreeDiffObject",
    "TreeObject",
    "TreeProgress",
    "TreeVersionObject",
    "TuningOptions",
    "invalid_input",
    "parse_body",
    "parse_line",
    "read_lines",
]
