"""From what was asked for to what is trained: the models to start from, the plan, its cost."""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from api.schemas.fine_tuning import Hyperparameters, JobCreate, TuningOptions
from api.services import Services
from api.training_files import TokenCounter, check_file
from hmi.adapters import AdapterKind
from hmi.adapters.formats import FILE_NAME, load_adapter
from hmi.catalog import GENERAL, File, NewTuningJob, Principal, ServedModel, bases, domains, files, models
from hmi.errors import AdapterRefused, Corrupt, InvalidInput, NotFound
from hmi.models.text import CHAT, ChatTemplate, load_chat
from hmi.spec import HPLMSpec, MissPolicy, TaskKind
from hmi.training.data import AnyExample, ChatExample, require_learnable
from hmi.training.plan import TrainConfig, TrainingPlan, config_from_start, default_rank

__all__ = ["Start", "find_start", "order_job", "request_of"]

_AUTO = "auto"
_SEEDS = 2**31


@dataclass(frozen=True, slots=True)
class Start:
    """What a job starts from: a base model and where the new model will be looked up, and the files, by their ids.

    Attributes:
        adapter: Artifact of the adapter that training begins with; None begins with nothing.
    """

    base: str
    base_artifact: str
    spec: HPLMSpec
    domain: str
    miss_policy: MissPolicy
    adapter: str | None
    training: File
    validation: File | None


def request_of(body: JobCreate) -> dict[str, Any]:
    """By which a repeated request is known."""
    return body.model_dump(mode="json", exclude_none=True)


def find_start(services: Services, session: Session, caller: Principal, body: JobCreate) -> Start:
    """Raises `NotFound` for model, domain and files, the same for unknown ones and for another tenant's."""
    options = body.hmi or TuningOptions()
    domain, miss_policy = GENERAL, MissPolicy.EXACT
    if "/" in body.model:
        model = _own_model(session, caller, body.model, "model")
        name, domain, miss_policy = model.base_name, model.domain, model.miss_policy
    else:
        name = body.model
    try:
        base = bases.get_base(session, name)
    except NotFound:
        raise _no_model(body.model, "model") from None
    return Start(
        base=base.name,
        base_artifact=base.artifact,
        spec=bases.spec_of(base),
        domain=domains.get_domain(session, options.domain or domain, param="hmi.domain").name,
        miss_policy=options.miss_policy or miss_policy,
        adapter=_adapter(session, caller, options.start, bases.spec_of(base)) if options.start else None,
        training=_file(session, caller.tenant_id, body.training_file, "training_file"),
        validation=_file(session, caller.tenant_id, body.validation_file, "validation_file")
        if body.validation_file
        else None,
    )


def order_job(services: Services, start: Start, body: JobCreate) -> NewTuningJob:
    """Read the files and settle what is trained.

    Raises `InvalidInput` for files that cannot be trained on, settings that contradict each other, and more work than a
    job may be.
    """
    if start.validation is not None and start.validation.id == start.training.id:
        message = "what judges must not be trained on: give another file, or none, and a tenth of the examples judges"
        raise InvalidInput(message, param="validation_file")
    options = body.hmi or TuningOptions()
    multiplier, config = _configure(services, body, options, start)
    counter = TokenCounter.open(services, start.base_artifact, min(config.max_tokens, start.spec.max_positions))
    wanted = options.task or (TaskKind.LANGUAGE if start.spec.family.decodes else None)
    if wanted is not None:
        require_learnable(wanted, start.spec.family, start.base, "hmi.task")
    chat = _chat(services, start.base_artifact)

    def take(example: AnyExample) -> None:
        counter.add(example)
        if chat is not None and isinstance(example, ChatExample):
            chat.render(example.messages)

    training = check_file(services, start.training, "training_file", take, kind=wanted)
    task = training.checked.kind
    if task is None:
        raise InvalidInput("there are no examples", code="invalid_training_file", param="training_file")
    require_learnable(task, start.spec.family, start.base, "training_file")
    if task is TaskKind.LANGUAGE and counter.has_chats and chat is None:
        message = f"{start.base} has no chat template, so messages say nothing to it; send prompt and completion"
        raise InvalidInput(message, code="invalid_training_file", param="training_file")
    if config.kind is AdapterKind.NONE and task is TaskKind.EMBEDDING:
        raise InvalidInput(
            "the model to begin with has nothing but a head, and embeddings have none", param="hmi.start"
        )
    examples, validation = training.checked.examples, None
    warnings = [f"training_file: {warning}" for warning in training.checked.warnings]
    if start.validation is not None:
        validation = check_file(services, start.validation, "validation_file", take, kind=task, judged=training.checked)
        examples += validation.checked.examples
        warnings += [f"validation_file: {warning}" for warning in validation.checked.warnings]
    cost = counter.total * config.epochs
    _check_size(services, examples, cost)
    plan = TrainingPlan(task, training.form, validation.form if validation else None, config, start.adapter)
    return NewTuningJob(
        model=body.model,
        base=start.base,
        domain=start.domain,
        miss_policy=start.miss_policy,
        suffix=body.suffix,
        training_file_id=start.training.id,
        validation_file_id=start.validation.id if start.validation else None,
        examples=examples,
        cost=cost,
        request=request_of(body),
        config=plan.to_json() | {"learning_rate_multiplier": multiplier},
        attributes=body.metadata or {},
        warnings=tuple(warnings),
    )


def _configure(services: Services, body: JobCreate, options: TuningOptions, start: Start) -> tuple[float, TrainConfig]:
    """The learning rate's multiplier, and the configuration that it is part of."""
    usual = TrainConfig()
    if start.spec.family.decodes:
        usual = dataclasses.replace(usual, kind=AdapterKind.LORA)
    if options.start is not None:
        usual = _begun_with(services, options, start, usual)
    newer = body.method.supervised.hyperparameters if body.method and body.method.supervised else None
    if newer is not None and body.hyperparameters is not None and newer != body.hyperparameters:
        raise InvalidInput(
            "hyperparameters and method.supervised.hyperparameters differ; one is enough", param="hyperparameters"
        )
    asked = newer or body.hyperparameters or Hyperparameters()

    def chosen(value: float | str | None, otherwise: float) -> float:
        return otherwise if value is None or isinstance(value, str) else value

    multiplier = float(chosen(asked.learning_rate_multiplier, 1.0))
    kind = AdapterKind(options.kind) if options.kind else usual.kind
    if start.spec.family.decodes and kind is not AdapterKind.LORA:
        raise InvalidInput(f"{start.base} is a {start.spec.family} and learns by a LoRA", param="hmi.kind")
    return multiplier, dataclasses.replace(
        usual,
        kind=kind,
        rank=options.rank or (usual.rank if options.start is not None else default_rank(kind)),
        epochs=int(chosen(asked.n_epochs, usual.epochs)),
        batch_size=int(chosen(asked.batch_size, usual.batch_size)),
        learning_rate=usual.learning_rate * multiplier,
        max_tokens=options.max_tokens or usual.max_tokens,
        miss_policy=start.miss_policy,
        seed=secrets.randbelow(_SEEDS) if body.seed is None else body.seed,
    )


def _begun_with(services: Services, options: TuningOptions, start: Start, usual: TrainConfig) -> TrainConfig:
    if options.kind or options.rank:
        raise InvalidInput("kind and rank are those of the model to begin with; leave them out", param="hmi.start")
    if start.adapter is None:
        raise InvalidInput("the model to begin with has no adapter", param="hmi.start")
    try:
        adapter = load_adapter(services.artifacts.folder(start.adapter) / FILE_NAME)
    except NotFound as error:
        raise Corrupt(f"the content of the model to begin with is lost: {error.message}") from error
    try:
        adapter.validate(start.spec.ordinary)
    except AdapterRefused as error:
        message = f"the model to begin with does not fit {start.base}: {error.message}"
        raise AdapterRefused(message, param="hmi.start") from error
    return config_from_start(adapter, usual)


def _check_size(services: Services, examples: int, cost: int) -> None:
    settings = services.settings
    if examples > settings.max_training_examples:
        message = f"{examples} examples in all; a job may have {settings.max_training_examples}"
        raise InvalidInput(message, code="too_many_examples", param="validation_file")
    if cost > settings.max_training_tokens:
        message = f"{cost} tokens in all epochs; a job may have {settings.max_training_tokens}: fewer epochs or texts"
        raise InvalidInput(message, code="too_many_tokens", param="training_file")


def _file(session: Session, tenant_id: str, file_id: str, param: str) -> File:
    try:
        return files.get_file(session, tenant_id, file_id)
    except NotFound as error:
        raise NotFound(error.message, code=error.code, param=param) from None


def _chat(services: Services, artifact: str) -> ChatTemplate | None:
    """The base model's template, where it has one. Raises `Corrupt`."""
    try:
        if all(file.name != CHAT for file in services.artifacts.files(artifact)):
            return None
        return load_chat(services.artifacts.part(artifact, {CHAT}))
    except NotFound as error:
        raise Corrupt(f"the base model's content is lost: {error.message}") from error


def _adapter(session: Session, caller: Principal, name: str, spec: HPLMSpec) -> str | None:
    """That of the model to begin with. Raises `NotFound`, and `InvalidInput` for a model of another pretrained one."""
    found = _own_model(session, caller, name, "hmi.start")
    theirs = bases.spec_of(bases.get_base(session, found.base_name))
    for field in ("family", "vocab_size", "hidden_size", "layers", "heads", "intermediate_size"):
        if getattr(theirs, field) != getattr(spec, field):
            message = f"{name} stands on another pretrained model: its {field} is {getattr(theirs, field)}"
            raise InvalidInput(message, param="hmi.start")
    return found.artifact


def _own_model(session: Session, caller: Principal, name: str, param: str) -> ServedModel:
    """Raises `NotFound`, also for others' models that an operator's key sees: they are not its own to follow up."""
    found = models.resolve(session, [name], caller).get(name)
    if found is None or found.tenant_id != caller.tenant_id:
        raise _no_model(name, param)
    return found


def _no_model(name: str, param: str) -> NotFound:
    return NotFound(f"there is no model {name[:200]!r}", code="model_not_found", param=param)
