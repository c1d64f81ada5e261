"""OpenAI's objects of fine-tuning, and what asks for a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from api.schemas.batches import Metadata
from api.schemas.common import RequestBody
from hmi.catalog import EventLevel, EventType, JobState, TuningEvent, TuningJob
from hmi.spec import MissPolicy, TaskKind

__all__ = ["EventObject", "Hyperparameters", "JobCreate", "JobObject", "TuningOptions"]

_MAX_EPOCHS = 100
_MAX_BATCH = 1024
_MAX_MULTIPLIER = 100
_MAX_SEED = 2**31 - 1

JobStatus = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
_STATUS: dict[JobState, JobStatus] = {
    JobState.PENDING: "queued",
    JobState.QUEUED: "queued",
    JobState.LEASED: "running",
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}


def _auto_or(check: Callable[[float], bool], meant: str) -> BeforeValidator:
    """One error with the field's own name: a union would give one for each of its members."""

    def validate(value: object) -> object:
        if value is None or value == "auto":
            return value
        if isinstance(value, bool) or not isinstance(value, int | float) or not check(value):
            raise ValueError(f"must be 'auto' or {meant}")
        return value

    return BeforeValidator(validate)


def _whole(most: int) -> tuple[BeforeValidator, WithJsonSchema]:
    number = {"type": "integer", "minimum": 1, "maximum": most}
    schema = WithJsonSchema({"anyOf": [{"const": "auto", "type": "string"}, number, {"type": "null"}]})
    return _auto_or(lambda value: 1 <= value <= most and value == int(value), f"a whole number in 1..{most}"), schema


_MULTIPLIER = {"type": "number", "exclusiveMinimum": 0, "maximum": _MAX_MULTIPLIER}
_IS_EPOCHS, _EPOCHS_SCHEMA = _whole(_MAX_EPOCHS)
_IS_BATCH, _BATCH_SCHEMA = _whole(_MAX_BATCH)
_IS_MULTIPLIER = _auto_or(lambda value: 0 < value <= _MAX_MULTIPLIER, f"a number above 0, of {_MAX_MULTIPLIER} at most")

Epochs = Annotated[Literal["auto"] | int | None, _IS_EPOCHS, _EPOCHS_SCHEMA]
BatchSize = Annotated[Literal["auto"] | int | None, _IS_BATCH, _BATCH_SCHEMA]
Multiplier = Annotated[
    Literal["auto"] | float | None,
    _IS_MULTIPLIER,
    WithJsonSchema({"anyOf": [{"const": "auto", "type": "string"}, _MULTIPLIER, {"type": "null"}]}),
]


class Hyperparameters(RequestBody):
    """What is left out or `auto` is chosen for you."""

    n_epochs: Annotated[
        Epochs, Field(description="The most: where a part of the text judges, training ends when it gets no better.")
    ] = None
    batch_size: Annotated[BatchSize, Field(description="Texts in one step.")] = None
    learning_rate_multiplier: Annotated[Multiplier, Field(description="Of the usual learning rate.")] = None


class SupervisedMethod(RequestBody):
    hyperparameters: Hyperparameters | None = None


class Method(RequestBody):
    type: Annotated[Literal["supervised"], Field(description="Nothing else is offered.")]
    supervised: SupervisedMethod | None = None


class TuningOptions(RequestBody):
    """What OpenAI's API has no field for. With its client: `extra_body={"hmi": {...}}`."""

    task: Annotated[TaskKind | None, Field(description="Found from the file's fields unless it is given.")] = None
    domain: Annotated[
        str | None,
        Field(max_length=64, description="Where n-grams are looked up first; default: `model`'s, `general`."),
    ] = None
    start: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=130,
            description="A model of yours, on any base of the same pretrained model, whose adapter training begins "
            "with. Kind, size and pooling are then its own.",
        ),
    ] = None
    kind: Annotated[Literal["lora", "bottleneck"] | None, Field(description="What is trained beside the head.")] = None
    rank: Annotated[int | None, Field(ge=1, le=256, description="Of LoRA pairs, or width of bottlenecks.")] = None
    miss_policy: Annotated[MissPolicy | None, Field(description="What an n-gram that is not stored gets.")] = None
    max_tokens: Annotated[int | None, Field(ge=3, le=65_536, description="Longer texts are cut in training.")] = None


class JobCreate(RequestBody):
    model: Annotated[
        str, Field(min_length=1, max_length=130, description="A base model, or a model of yours, to be trained anew.")
    ]
    training_file: Annotated[str, Field(max_length=64, description="A file of purpose `fine-tune`.")]
    validation_file: Annotated[
        str | None,
        Field(max_length=64, description="Judges after every epoch. Without it a tenth of the training file does."),
    ] = None
    suffix: Annotated[
        str | None,
        Field(max_length=64, description="The model's name: `<tenant>/<suffix>`. One that exists gets a new revision."),
    ] = None
    seed: Annotated[int | None, Field(ge=0, le=_MAX_SEED)] = None
    hyperparameters: Annotated[Hyperparameters | None, Field(description="The older place for them.")] = None
    method: Method | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[Any] | None, Field(max_length=0, description="None are offered.")] = None
    hmi: TuningOptions | None = None


class JobError(BaseModel):
    code: str
    message: str
    param: str | None


class JobHyperparameters(BaseModel):
    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float


class JobSupervised(BaseModel):
    hyperparameters: JobHyperparameters


class JobMethod(BaseModel):
    type: Literal["supervised"] = "supervised"
    supervised: JobSupervised


class JobProgress(BaseModel):
    done: Annotated[int, Field(description="Steps of the optimiser.")]
    steps: Annotated[int, Field(description="The most that there will be.")]
    epoch: Annotated[int, Field(description="From 1.")]
    epochs: int
    loss: float | None
    trained_tokens: int
    seconds_left: float | None


class JobDetails(BaseModel):
    """What OpenAI's object has no field for."""

    task: TaskKind
    base: str
    domain: str
    miss_policy: MissPolicy
    kind: str
    rank: int
    max_tokens: int
    suffix: Annotated[str, Field(description="What the model will be called, without the tenant's name.")]
    examples: int
    started_at: int | None
    progress: Annotated[JobProgress | None, Field(description="Null before the first step.")]


class JobObject(BaseModel):
    """Times are Unix seconds; one that has not come is null."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    estimated_finish: Annotated[int | None, Field(description="Null while it does not run.")]
    finished_at: int | None
    status: JobStatus
    error: Annotated[JobError | None, Field(description="Why a `failed` job failed.")]
    model: Annotated[str, Field(description="As it was asked for.")]
    fine_tuned_model: Annotated[str | None, Field(description="What a request's `model` may name, once it succeeded.")]
    organization_id: Annotated[str, Field(description="The tenant.")]
    training_file: str
    validation_file: str | None
    result_files: Annotated[list[str], Field(description="A report as JSON, once it succeeded.")]
    trained_tokens: Annotated[int | None, Field(description="Of all epochs; null until the end.")]
    hyperparameters: JobHyperparameters
    method: JobMethod
    seed: int
    integrations: None = None
    metadata: dict[str, str] | None
    hmi: JobDetails

    @classmethod
    def from_row(cls, job: TuningJob, tenant: str) -> Self:
        config = job.config["config"]
        chosen = JobHyperparameters(
            n_epochs=config["epochs"],
            batch_size=config["batch_size"],
            learning_rate_multiplier=job.config["learning_rate_multiplier"],
        )
        return cls(
            id=job.id,
            created_at=int(job.created_at),
            estimated_finish=_seconds(job.estimated_finish),
            finished_at=_seconds(job.finished_at),
            status=_STATUS[job.state],
            error=None if job.error is None else JobError.model_validate(job.error),
            model=job.model,
            fine_tuned_model=job.fine_tuned_model,
            organization_id=tenant,
            training_file=job.training_file_id,
            validation_file=job.validation_file_id,
            result_files=[] if job.result_file_id is None else [job.result_file_id],
            trained_tokens=job.trained_tokens,
            hyperparameters=chosen,
            method=JobMethod(supervised=JobSupervised(hyperparameters=chosen)),
            seed=config["seed"],
            metadata=job.attributes or None,
            hmi=JobDetails(
                task=TaskKind(job.config["task"]),
                base=job.base,
                domain=job.domain,
                miss_policy=job.miss_policy,
                kind=config["kind"],
                rank=config["rank"],
                max_tokens=config["max_tokens"],
                suffix=job.target,
                examples=job.examples,
                started_at=_seconds(job.started_at),
                progress=None if job.progress is None else JobProgress.model_validate(job.progress),
            ),
        )


class EventObject(BaseModel):
    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: EventLevel
    message: str
    type: EventType
    data: Annotated[dict[str, Any] | None, Field(description="The figures of an event of type `metrics`.")]

    @classmethod
    def from_row(cls, event: TuningEvent) -> Self:
        return cls(
            id=event.id,
            created_at=int(event.created_at),
            level=event.level,
            message=event.message,
            type=event.type,
            data=event.data,
        )


def _seconds(time: float | None) -> int | None:
    return None if time is None else int(time)
