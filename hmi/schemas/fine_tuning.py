"""OpenAI's objects of fine-tuning, and the body that starts a job."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from hmi.schemas.base import OptionalTimestamp, RequestModel, ResponseModel, Timestamp
from hmi.schemas.batches import Metadata
from hmi.schemas.validation import TAG
from hmi.spec import MissPolicy, TaskKind

_AUTO, _NUMBER = f"{TAG}auto", f"{TAG}number"

JobStatus = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]


def _auto_or(number: str) -> Discriminator:
    def kind(value: object) -> str | None:
        if value == "auto":
            return _AUTO
        return _NUMBER if isinstance(value, int | float) and not isinstance(value, bool) else None

    return Discriminator(kind, custom_error_type="unknown_form", custom_error_message=f"must be 'auto' or {number}")


_Auto = Annotated[Literal["auto"], Tag(_AUTO)]
_Epochs = Annotated[int, Field(ge=1, le=100), Tag(_NUMBER)]
_BatchSize = Annotated[int, Field(ge=1, le=1024), Tag(_NUMBER)]
_Multiplier = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False), Tag(_NUMBER)]


class Hyperparameters(RequestModel):
    """What is left out or `auto` is chosen for the caller."""

    n_epochs: Annotated[
        Annotated[_Auto | _Epochs, _auto_or("a whole number from 1 to 100")] | None,
        Field(description="The most: with a validation file, training ends when the score stops improving."),
    ] = None
    batch_size: Annotated[
        Annotated[_Auto | _BatchSize, _auto_or("a whole number from 1 to 1024")] | None,
        Field(description="Texts in one step."),
    ] = None
    learning_rate_multiplier: Annotated[
        Annotated[_Auto | _Multiplier, _auto_or("a number above 0, of 100 at most")] | None,
        Field(description="Of the usual learning rate."),
    ] = None


class SupervisedMethod(RequestModel):
    hyperparameters: Hyperparameters | None = None


class Method(RequestModel):
    type: Annotated[Literal["supervised"], Field(description="Nothing else is offered.")]
    supervised: SupervisedMethod | None = None


class TuningOptions(RequestModel):
    """Options beyond OpenAI's API. With its client: `extra_body={"hmi": {...}}`."""

    task: Annotated[TaskKind | None, Field(strict=False, description="Default: found from the file's fields.")] = None
    domain: Annotated[
        str | None,
        Field(max_length=64, description="Where n-grams are looked up first. Default: `model`'s, or `general`."),
    ] = None
    start: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=130,
            description="A model of yours, on any base of the same pretrained model, whose adapter is trained "
            "further. It decides kind, size and pooling.",
        ),
    ] = None
    kind: Annotated[Literal["lora", "bottleneck"] | None, Field(description="What is trained besides the head.")] = None
    rank: Annotated[int | None, Field(ge=1, le=256, description="Rank of a LoRA, or width of a bottleneck.")] = None
    miss_policy: Annotated[MissPolicy | None, Field(strict=False, description="For n-grams without a row.")] = None
    max_tokens: Annotated[int | None, Field(ge=3, le=65_536, description="Longer texts are cut in training.")] = None


class JobCreate(RequestModel):
    model: Annotated[
        str, Field(min_length=1, max_length=130, description="A base model, or a model of yours to be trained anew.")
    ]
    training_file: Annotated[str, Field(max_length=64, description="A file of purpose `fine-tune`.")]
    validation_file: Annotated[
        str | None, Field(max_length=64, description="Scores every epoch. Default: a tenth of the training file does.")
    ] = None
    suffix: Annotated[
        str | None,
        Field(max_length=64, description="The model's name: `<tenant>/<suffix>`. An existing one gets a new revision."),
    ] = None
    seed: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None
    hyperparameters: Annotated[Hyperparameters | None, Field(description="OpenAI's older place for them.")] = None
    method: Method | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[Any] | None, Field(max_length=0, description="None are offered.")] = None
    hmi: TuningOptions | None = None


class JobError(ResponseModel):
    code: str
    message: str
    param: str | None


class JobHyperparameters(ResponseModel):
    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float


class JobSupervised(ResponseModel):
    hyperparameters: JobHyperparameters


class JobMethod(ResponseModel):
    type: Literal["supervised"] = "supervised"
    supervised: JobSupervised


class JobProgress(ResponseModel):
    done: Annotated[int, Field(description="Steps of the optimiser.")]
    steps: Annotated[int, Field(description="The most that there will be.")]
    epoch: Annotated[int, Field(description="From 1.")]
    epochs: int
    loss: float | None
    trained_tokens: int
    seconds_left: float | None


class JobDetails(ResponseModel):
    """Details beyond OpenAI's object."""

    task: TaskKind
    base: str
    domain: str
    miss_policy: MissPolicy
    kind: str
    rank: int
    max_tokens: int
    suffix: Annotated[str, Field(description="The new model's name without the tenant's.")]
    examples: int
    started_at: OptionalTimestamp
    progress: Annotated[JobProgress | None, Field(description="Null before the first step.")]


class JobObject(ResponseModel):
    """Times are Unix seconds; one that has not come is null."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: Timestamp
    estimated_finish: Annotated[OptionalTimestamp, Field(description="Null unless the job runs.")]
    finished_at: OptionalTimestamp
    status: JobStatus
    error: Annotated[JobError | None, Field(description="Why a `failed` job failed.")]
    model: Annotated[str, Field(description="As the request named it.")]
    fine_tuned_model: Annotated[str | None, Field(description="The new model's name, once the job succeeded.")]
    organization_id: Annotated[str, Field(description="The tenant.")]
    training_file: str
    validation_file: str | None
    result_files: Annotated[list[str], Field(description="A report as JSON, once the job succeeded.")]
    trained_tokens: Annotated[int | None, Field(description="Of all epochs; null until the end.")]
    hyperparameters: JobHyperparameters
    method: JobMethod
    seed: int
    integrations: None = None
    metadata: dict[str, str] | None
    hmi: JobDetails

    @property
    def is_over(self) -> bool:
        """Whether the status is one that stays."""
        return self.status in {"succeeded", "failed", "cancelled"}


class EventObject(ResponseModel):
    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: Timestamp
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: Annotated[dict[str, Any] | None, Field(description="The figures of an event of type `metrics`.")]
