"""From a request to the job that is trained: the models to start from, the plan and its cost."""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from api.files import get_file
from api.fine_tuning.training_files import TokenCounter, TrainingFile, check_file
from api.services import Services
from hmi.adapters import AdapterKind
from hmi.adapters.formats import FILE_NAME, load_adapter
from hmi.catalog import GENERAL, File, NewTuningJob, Principal, RegisteredModel, bases, domains, models
from hmi.errors import AdapterRefused, Corrupt, InvalidInput, NotFound
from hmi.models.text import CHAT, ChatTemplate, load_chat
from hmi.schemas import Hyperparameters, JobCreate, TuningOptions
from hmi.spec import HPLMSpec, MissPolicy, TaskKind
from hmi.training.data import AnyExample, ChatExample, require_learnable
from hmi.training.plan import TrainConfig, TrainingPlan, config_from_start, default_rank

_SEEDS = 2**31


@dataclass(frozen=True, slots=True)
class Start:
    """The models and files that a request names."""

    base: str
    base_artifact: str
    spec: HPLMSpec
    domain: str  # of the new model, as `miss_policy`
    miss_policy: MissPolicy
    adapter: str | None  # artifact of an adapter to train further
    training: File
    validation: File | None


def request_of(body: JobCreate) -> dict[str, Any]:
    """The request as it is recorded, to recognise its repetition."""
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
        domain=domains.get_domain(
            session, options.domain or domain, tenant_id=caller.tenant_id, param="hmi.domain"
        ).name,
        miss_policy=options.miss_policy or miss_policy,
        adapter=_adapter(session, caller, options.start, bases.spec_of(base)) if options.start else None,
        training=get_file(session, caller.tenant_id, body.training_file, "training_file", purpose="fine-tune"),
        validation=None
        if body.validation_file is None
        else get_file(session, caller.tenant_id, body.validation_file, "validation_file", purpose="fine-tune"),
    )


def order_job(services: Services, start: Start, body: JobCreate) -> NewTuningJob:
    """Read the files and decide what is trained.

    Raises `InvalidInput` for files that cannot be trained on, contradictory settings, and a job that is too large.
    """
    if start.validation is not None and start.validation.id == start.training.id:
        message = (
            "validation texts must not be trained on: send another file, or none to validate with a tenth of the texts"
        )
        raise InvalidInput(message, param="validation_file")
    options = body.hmi or TuningOptions()
    multiplier, config = _configure(services, body, options, start)
    tokenizer = services.tokenizer(start.base_artifact)
    counter = TokenCounter(tokenizer, min(config.max_tokens, start.spec.max_positions))
    given = options.task or (TaskKind.LANGUAGE if start.spec.family.decodes else None)
    if given is not None:
        require_learnable(given, start.spec.family, start.base, "hmi.task")
    chat = _chat(services, start.base_artifact)

    def take(example: AnyExample) -> None:
        counter.add(example)
        if chat is not None and isinstance(example, ChatExample):
            chat.render(example.messages)

    training = check_file(services, start.training, "training_file", take, kind=given)
    task = _task_of(training, start)
    if task is TaskKind.LANGUAGE and counter.has_chats and chat is None:
        message = f"{start.base} has no chat template and cannot read messages; send prompt and completion"
        raise InvalidInput(message, code="invalid_training_file", param="training_file")
    if config.kind is AdapterKind.NONE and task is TaskKind.EMBEDDING:
        raise InvalidInput("the start model has only a head, and embeddings have none", param="hmi.start")
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


def _task_of(training: TrainingFile, start: Start) -> TaskKind:
    task = training.checked.kind
    if task is None:
        raise InvalidInput("there are no examples", code="invalid_training_file", param="training_file")
    require_learnable(task, start.spec.family, start.base, "training_file")
    return task


def _configure(services: Services, body: JobCreate, options: TuningOptions, start: Start) -> tuple[float, TrainConfig]:
    """The multiplier of the learning rate, and the configuration that contains it."""
    usual = TrainConfig()
    if start.spec.family.decodes:
        usual = dataclasses.replace(usual, kind=AdapterKind.LORA)
    if options.start is not None:
        usual = _config_of_start(services, options, start, usual)
    newer = body.method.supervised.hyperparameters if body.method and body.method.supervised else None
    if newer is not None and body.hyperparameters is not None and newer != body.hyperparameters:
        raise InvalidInput(
            "hyperparameters and method.supervised.hyperparameters differ; one is enough", param="hyperparameters"
        )
    given = newer or body.hyperparameters or Hyperparameters()

    def chosen(value: float | str | None, otherwise: float) -> float:
        return otherwise if value is None or isinstance(value, str) else value

    multiplier = float(chosen(given.learning_rate_multiplier, 1.0))
    kind = AdapterKind(options.kind) if options.kind else usual.kind
    if start.spec.family.decodes and kind is not AdapterKind.LORA:
        raise InvalidInput(f"{start.base} is a {start.spec.family}, which is trained with a LoRA", param="hmi.kind")
    return multiplier, dataclasses.replace(
        usual,
        kind=kind,
        rank=options.rank or (usual.rank if options.start is not None else default_rank(kind)),
        epochs=int(chosen(given.n_epochs, usual.epochs)),
        batch_size=int(chosen(given.batch_size, usual.batch_size)),
        learning_rate=usual.learning_rate * multiplier,
        max_tokens=options.max_tokens or usual.max_tokens,
        miss_policy=start.miss_policy,
        seed=secrets.randbelow(_SEEDS) if body.seed is None else body.seed,
    )


def _config_of_start(services: Services, options: TuningOptions, start: Start, usual: TrainConfig) -> TrainConfig:
    if options.kind or options.rank:
        raise InvalidInput("the start model decides kind and rank; leave them out", param="hmi.start")
    if start.adapter is None:
        raise InvalidInput("the start model has no adapter", param="hmi.start")
    try:
        adapter = load_adapter(services.artifacts.folder(start.adapter) / FILE_NAME)
    except NotFound as error:
        raise Corrupt(f"the content of the start model is lost: {error.message}") from error
    try:
        adapter.validate(start.spec.ordinary)
    except AdapterRefused as error:
        message = f"the start model does not fit {start.base}: {error.message}"
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


def _chat(services: Services, artifact: str) -> ChatTemplate | None:
    """The base model's template, where it has one. Raises `Corrupt`."""
    try:
        if all(file.name != CHAT for file in services.artifacts.files(artifact)):
            return None
        return load_chat(services.artifacts.part(artifact, {CHAT}))
    except NotFound as error:
        raise Corrupt(f"the base model's content is lost: {error.message}") from error


def _adapter(session: Session, caller: Principal, name: str, spec: HPLMSpec) -> str | None:
    """The start model's artifact. Raises `NotFound`, and `InvalidInput` for another pretrained model."""
    found = _own_model(session, caller, name, "hmi.start")
    theirs = bases.spec_of(bases.get_base(session, found.base_name))
    for field in ("family", "vocab_size", "hidden_size", "layers", "heads", "intermediate_size"):
        if getattr(theirs, field) != getattr(spec, field):
            message = f"{name} is on another pretrained model: its {field} is {getattr(theirs, field)}"
            raise InvalidInput(message, param="hmi.start")
    return found.artifact


def _own_model(session: Session, caller: Principal, name: str, param: str) -> RegisteredModel:
    """Raises `NotFound`, also for other tenants' models that an operator's key may see."""
    found = models.resolve(session, [name], caller).get(name)
    if found is None or found.tenant_id != caller.tenant_id:
        raise _no_model(name, param)
    return found


def _no_model(name: str, param: str) -> NotFound:
    return NotFound(f"there is no model {name[:200]!r}", code="model_not_found", param=param)
