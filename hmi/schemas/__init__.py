"""The HTTP and batch-line contract in pydantic: request bodies, which are strict, and response bodies.

The API declares its endpoints with these models, workers read the bodies in batch lines with `parse_line` and
`parse_body`, and the CLI reads answers with the response models. Start at `base`, then `lines` and `inference`.
`validation` turns pydantic's errors into `InvalidInput`.
"""

from __future__ import annotations

from hmi.schemas.base import NAME_PATTERN, Deleted, ErrorResponse, Listing, Name, Page, ResponseModel, Timestamp
from hmi.schemas.batches import BatchCreate, BatchObject, BatchProblem, FileDeleted, FileObject, Metadata, RequestCounts
from hmi.schemas.fine_tuning import EventObject, Hyperparameters, JobCreate, JobObject, TuningOptions
from hmi.schemas.generation import (
    DEFAULT_MAX_TOKENS,
    MAX_CHOICES,
    NO_LIMIT,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
)
from hmi.schemas.inference import TRUNCATE_TO_MODEL, Chat, ClassificationRequest, EmbeddingRequest, InferenceRequest
from hmi.schemas.knowledge import (
    BaseObject,
    DeltaObject,
    DomainChange,
    DomainCreate,
    DomainObject,
    FrequenciesCounted,
    FrequenciesCreate,
)
from hmi.schemas.lines import (
    CHAT,
    CLASSIFY,
    COMPLETIONS,
    EMBEDDINGS,
    ENDPOINTS,
    BatchLine,
    Limits,
    parse_body,
    parse_line,
    read_lines,
)
from hmi.schemas.models import (
    KeyCreate,
    KeyObject,
    ModelObject,
    NewKeyObject,
    TenantCreate,
    TenantModelObject,
    TenantObject,
)
from hmi.schemas.operations import Health, NodeObject, Readiness
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
    Used,
)
from hmi.schemas.validation import invalid_input

__all__ = [
    "CHAT",
    "CLASSIFY",
    "COMPLETIONS",
    "DEFAULT_MAX_TOKENS",
    "EMBEDDINGS",
    "ENDPOINTS",
    "MAX_CHOICES",
    "NAME_PATTERN",
    "NO_LIMIT",
    "TRUNCATE_TO_MODEL",
    "BaseObject",
    "BatchCreate",
    "BatchLine",
    "BatchObject",
    "BatchProblem",
    "Chat",
    "ChatRequest",
    "ClassificationRequest",
    "CompletionRequest",
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
    "GenerationRequest",
    "Health",
    "Hyperparameters",
    "InferenceRequest",
    "JobCreate",
    "JobObject",
    "KeyCreate",
    "KeyObject",
    "Limits",
    "Listing",
    "Metadata",
    "ModelObject",
    "Name",
    "NewKeyObject",
    "NgramObject",
    "NgramPage",
    "NgramText",
    "NodeObject",
    "Page",
    "Readiness",
    "RebuildRequested",
    "RequestCounts",
    "ResponseModel",
    "Rollback",
    "TenantCreate",
    "TenantModelObject",
    "TenantObject",
    "Timestamp",
    "TreeBuild",
    "TreeDiffObject",
    "TreeObject",
    "TreeProgress",
    "TreeVersionObject",
    "TuningOptions",
    "Used",
    "invalid_input",
    "parse_body",
    "parse_line",
    "read_lines",
]
