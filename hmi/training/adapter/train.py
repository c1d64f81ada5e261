"""A tenant's adapter and head from labelled text: only what lies above the lower layers is trained.

The lower layers' output is the one that serving looks up, rounding and the domain's delta included, so a model is
trained on exactly what it will see. It is computed once for each distinct window and needs no gradient.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hmi.adapters import Adapter, AdapterKind, Pooling
from hmi.adapters.formats import check_delta
from hmi.adapters.maths import SingleAdapter
from hmi.artifacts import folder_digest
from hmi.devices import resolve_device, resolve_dtype
from hmi.errors import InvalidInput
from hmi.models.families import load_hplm, load_tokenizer
from hmi.models.text import load_chat
from hmi.spec import Family, HPLMSpec, MissPolicy, TaskKind
from hmi.training.adapter.epochs import Loop
from hmi.training.data import AnyExample, kind_of, require_known_labels, require_learnable, split_dev, without_texts
from hmi.training.loop import Checkpoint
from hmi.training.lower import SimulatedTree, YieldHook, estimator_of
from hmi.training.plan import TrainConfig
from hmi.training.reports import OnProgress, TrainedAdapter, TrainReport
from hmi.training.tasks import (
    Classification,
    Contrast,
    Language,
    MultiLabel,
    Network,
    Objective,
    Preprocessor,
    Tagging,
    TrainableAdapter,
    class_labels,
    multi_labels,
    require_contrast,
    tag_labels,
)

__all__ = ["TrainReport", "TrainedAdapter", "train_adapter"]


def train_adapter(
    folder: Path,
    examples: Sequence[AnyExample],
    config: TrainConfig,
    dev: Sequence[AnyExample] = (),
    *,
    delta: Adapter | None = None,
    start: Adapter | None = None,
    on_progress: OnProgress = lambda progress: None,
    yield_hook: YieldHook = lambda: None,
    checkpoint: Path | None = None,
) -> TrainedAdapter:
    """Train an adapter, and the head that the examples ask for, on the base artifact in `folder`.

    Args:
        dev: Judges, after every epoch, and says which one is kept; examples of its texts are not learnt from. Without
            it a share of the examples does (`TrainConfig.dev_share`), chosen by the text's hash; too few to say
            anything are not set apart.
        delta: Of the domain that the model will be served in, so that it learns from that domain's rows.
        start: An adapter of the same base model at any k, say of the ordinary model, to begin with, see
            `TrainableAdapter.begin_with`. What it knows need not be learnt again: a third of the usual learning rate
            and half of the epochs are enough.
        on_progress: Told after every step of the optimiser; what it raises ends the training.
        yield_hook: Called after every small piece of the work that lies before and between the steps; likewise.
        checkpoint: Where the training's state is kept while it runs. Found there, it is taken over, and the weights
            are, to the bit on a machine of one kind with as many threads, those of a training that was never stopped;
            what another training left, or one in another dtype, is replaced.

    Raises:
        InvalidInput: Examples that nothing can be learnt from, or of different tasks; or training that diverges.
        AdapterRefused: A delta that is none of this base's, a start of another kind, or labels that no head may have.
        Corrupt: A damaged base.
        OSError: A checkpoint that cannot be written.
    """
    started = time.monotonic()
    kind = kind_of(examples)
    if dev:
        if kind_of(dev) is not kind:
            raise InvalidInput(f"the dev part is for {kind_of(dev)}, the training part for {kind}")
        learnt, judging = without_texts(dev, examples), list(dev)
        require_known_labels(judging, learnt)
    else:
        learnt, judging = split_dev(examples, config.dev_share)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    model = load_hplm(folder, device, dtype)
    _check_family(kind, config, model.spec)
    if config.lowest_layer >= model.spec.layers:
        raise InvalidInput(f"lowest_layer must be one of the model's {model.spec.layers}", param="lowest_layer")
    if delta is not None:
        check_delta(delta, model.spec)
    lower = None if delta is None else SingleAdapter.of(delta, device, model.dtype)
    max_tokens = min(config.max_tokens, model.spec.max_positions)
    tokenizer = load_tokenizer(folder)
    estimator = estimator_of(model, delta)
    tree = SimulatedTree(estimates=estimator is not None) if config.miss_policy is MissPolicy.BACKOFF else None
    chat = load_chat(folder)
    texts = Preprocessor(
        model, tokenizer, max_tokens, lower, yield_hook, tree.learnt if tree else None, chat, estimator
    )
    others = Preprocessor(
        model, tokenizer, max_tokens, lower, yield_hook, tree.others if tree else None, chat, estimator
    )
    objective = _objective(kind, learnt, config, model.spec.family, start)
    generator = torch.Generator().manual_seed(config.seed)
    trainable = TrainableAdapter(
        model.spec,
        objective.labels,
        lowest_layer=config.lowest_layer,
        kind=config.kind,
        rank=config.rank,
        sites=config.sites,
        placements=config.placements,
        pooling=objective.pooling,
        generator=generator,
        multi_label=kind is TaskKind.MULTI_LABEL,
        before_norm=config.before_norm,
        activation=config.activation,
    ).to(device)
    trainable.export().validate(model.spec)  # what would be refused at the end is refused before
    network = Network(model, trainable, yield_hook)
    base = folder_digest(folder)
    # What `auto` is differs from machine to machine, and whoever goes on may be another one.
    decided = dataclasses.replace(config, dtype=str(dtype).removeprefix("torch."))
    saved = Checkpoint(checkpoint, _identity(base, decided, (delta, start), learnt, judging)) if checkpoint else None
    part, judges = objective.prepare(learnt, texts), objective.prepare(judging, others) if judging else None
    baseline = objective.baseline(network, part, judges) if judges else None
    if start is not None:
        trainable.begin_with(start)
    loop = Loop(network, config, generator, on_progress, saved, started)
    course = loop.run(objective, part, judges)
    adapter = trainable.export()
    adapter.validate(model.spec)
    report = TrainReport(
        task=kind,
        examples=len(learnt),
        dev_examples=len(judging),
        left_out=len(examples) - len(learnt) if dev else 0,
        labels=objective.labels,
        label_counts=objective.counts(part),
        epochs=course.epochs,
        best_epoch=course.best_epoch or course.epochs,
        losses=tuple(course.losses),
        dev_scores=tuple(each.score for each in course.judged),
        dev=course.judged[course.best_epoch - 1] if course.judged else None,
        baseline=baseline,
        tokens=int(part.tokens.sum()),
        trained_tokens=course.trained_tokens,
        seconds=course.seconds,
        base=base,
        k=model.spec.k,
        config=config,
        started=start is not None,
        resumed_at=loop.resumed_at,
    )
    return TrainedAdapter(adapter, report)


def _check_family(kind: TaskKind, config: TrainConfig, spec: HPLMSpec) -> None:
    """Raises `InvalidInput` for what a model of this family does not learn, or not in this way."""
    require_learnable(kind, spec.family, "the base", "task")
    if spec.family.decodes and config.kind is not AdapterKind.LORA:
        raise InvalidInput(f"a {spec.family} learns by a LoRA, not by kind {config.kind}", param="kind")


def _objective(
    kind: TaskKind, learnt: Sequence[Any], config: TrainConfig, family: Family, start: Adapter | None
) -> Objective[Any]:
    pooling = config.pooling
    if family.decodes:  # its last token has seen all of the text
        pooling = start.head.pooling if start is not None and start.head is not None else Pooling.LAST
    match kind:
        case TaskKind.CLASSIFICATION:
            return Classification(class_labels(learnt), pooling)
        case TaskKind.MULTI_LABEL:
            return MultiLabel(multi_labels(learnt), pooling)
        case TaskKind.TOKENS:
            return Tagging(tag_labels(learnt))
        case TaskKind.EMBEDDING:
            if config.kind is AdapterKind.NONE:
                raise InvalidInput("embeddings without an adapter are the base model's own", param="kind")
            require_contrast(learnt)
            return Contrast(config.temperature)
        case TaskKind.LANGUAGE:
            return Language()


def _identity(
    base: str,
    config: TrainConfig,
    given: Sequence[Adapter | None],
    learnt: Sequence[AnyExample],
    judging: Sequence[AnyExample],
) -> str:
    """Digest of all that decides what comes of a training."""
    digest = hashlib.sha256(f"{base}\n{json.dumps(config.to_json())}\n".encode())
    for number, adapter in enumerate(given):
        for name, tensor in adapter.tensors().items() if adapter else ():
            digest.update(f"{number} {name}".encode() if number else name.encode())
            digest.update(tensor.tobytes())
    for example in itertools.chain(learnt, [None], judging):
        digest.update(repr(example).encode())
    return digest.hexdigest()
