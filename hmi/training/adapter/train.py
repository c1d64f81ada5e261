"""A tenant's adapter and head from labelled text; only the layers above the lookup are trained.

The lower layers' output is what serving looks up, rounding and the domain's delta included, so that the model is
trained on exactly what it will read. It is computed once for each distinct window and needs no gradient.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hmi.adapters import Adapter, AdapterKind, Pooling
from hmi.adapters.formats import check_delta
from hmi.adapters.maths import SingleAdapter
from hmi.artifacts import folder_digest
from hmi.devices import resolve_device, resolve_dtype
from hmi.errors import InvalidInput
from hmi.models.families import HPLM, load_hplm, load_tokenizer
from hmi.models.text import load_chat
from hmi.spec import Family, HPLMSpec, MissPolicy, TaskKind
from hmi.training.adapter.epochs import EpochLoop
from hmi.training.data import AnyExample, kind_of, require_known_labels, require_learnable, split_dev, without_texts
from hmi.training.loop import Checkpoint
from hmi.training.lower import LowerStates, SimulatedTree, ViewWindows, YieldHook, estimator_of
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
    class_labels,
    multi_labels,
    require_contrast,
    tag_labels,
)
from hmi.training.trainable import TrainableAdapter


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
    """Train an adapter, and the head that the examples need, on the base artifact in `folder`.

    Args:
        dev: Evaluated after every epoch, to keep the best one; examples with its texts are not trained on. By default
            a share of the examples (`TrainConfig.dev_share`), chosen by the text's hash, unless they are too few.
        delta: Of the domain that the model will be served in; the training then uses that domain's rows.
        start: An adapter of the same base model at any k to begin with, for example the ordinary model's, see
            `TrainableAdapter.start_from`. A third of the usual learning rate and half of the epochs are then enough.
        checkpoint: File that keeps the training's state. If it is there, training resumes from it and ends with the
            same weights, to the bit on one kind of machine with as many threads. The checkpoint of another training or
            of another dtype is replaced.

    Raises: `InvalidInput` (examples that nothing can be learnt from, or of different tasks; training that diverges),
        `AdapterRefused` (a delta of another base, a start of another kind, labels that no head may have), `Corrupt`
        (the base), `OSError` (the checkpoint).
    """
    started = time.monotonic()
    train, held_out = _split(examples, dev, config)
    left_out = len(examples) - len(train) if dev else 0
    training = _AdapterTraining(folder, config, train, held_out, delta, start, left_out)
    return training.run(on_progress, yield_hook, checkpoint, started)


@dataclass(frozen=True, slots=True)
class _AdapterTraining:
    """Arguments of `train_adapter` after the split; `left_out` examples share a text with the dev set."""

    folder: Path
    config: TrainConfig
    train: list[AnyExample]
    dev: list[AnyExample]
    delta: Adapter | None
    start: Adapter | None
    left_out: int

    def run(
        self, on_progress: OnProgress, yield_hook: YieldHook, checkpoint: Path | None, started: float
    ) -> TrainedAdapter:
        config, kind = self.config, kind_of(self.train)
        device = resolve_device(config.device)
        model = load_hplm(self.folder, device, resolve_dtype(config.dtype, device))
        _check_model(kind, config, model.spec, self.delta)
        objective = self._objective(kind, model.spec.family)
        generator = torch.Generator().manual_seed(config.seed)
        trainable = TrainableAdapter(
            model.spec,
            config,
            objective.labels,
            objective.pooling,
            generator,
            multi_label=kind is TaskKind.MULTI_LABEL,
        ).to(device)
        trainable.export().validate(model.spec)  # what would be refused at the end is refused now
        network = Network(model, trainable, yield_hook)
        train_texts, dev_texts = self._preprocessors(model, yield_hook)
        train_data = objective.prepare(self.train, train_texts)
        dev_data = objective.prepare(self.dev, dev_texts) if self.dev else None
        baseline = objective.baseline(network, train_data, dev_data) if dev_data else None
        if self.start is not None:
            trainable.start_from(self.start)
        base = folder_digest(self.folder)
        loop = EpochLoop(network, objective, train_data, dev_data, config, generator, on_progress)
        saved = Checkpoint(checkpoint, self._identity(base, model.dtype)) if checkpoint else None
        outcome = loop.run(saved, started)
        adapter = trainable.export()
        adapter.validate(model.spec)
        report = TrainReport(
            task=kind,
            examples=len(self.train),
            dev_examples=len(self.dev),
            labels=objective.labels,
            label_counts=objective.counts(train_data),
            epochs=len(outcome.losses),
            best_epoch=outcome.best_epoch,
            losses=outcome.losses,
            dev_scores=tuple(each.score for each in outcome.evaluations),
            dev=outcome.evaluations[outcome.best_epoch - 1] if outcome.evaluations else None,
            baseline=baseline,
            tokens=int(train_data.tokens.sum()),
            trained_tokens=outcome.trained_tokens,
            seconds=outcome.seconds,
            base=base,
            k=model.spec.k,
            config=config,
            left_out=self.left_out,
            started=self.start is not None,
            resumed_at=outcome.resumed_at,
        )
        return TrainedAdapter(adapter, report)

    def _objective(self, kind: TaskKind, family: Family) -> Objective[Any]:
        examples: Sequence[Any] = self.train
        head = self.start.head if self.start is not None else None
        pooling = self.config.pooling
        if family.decodes:  # the last token has read the whole text
            pooling = Pooling.LAST if head is None else head.pooling
        match kind:
            case TaskKind.CLASSIFICATION:
                return Classification(class_labels(examples), pooling)
            case TaskKind.MULTI_LABEL:
                return MultiLabel(multi_labels(examples), pooling)
            case TaskKind.TOKENS:
                return Tagging(tag_labels(examples))
            case TaskKind.EMBEDDING:
                if self.config.kind is AdapterKind.NONE:
                    raise InvalidInput("embeddings without an adapter are the base model's own", param="kind")
                require_contrast(examples)
                return Contrast(self.config.temperature)
            case TaskKind.LANGUAGE:
                return Language()

    def _preprocessors(self, model: HPLM, yield_hook: YieldHook) -> tuple[Preprocessor, Preprocessor]:
        """For the training set and the dev set, which must be prepared in this order."""
        delta, config = self.delta, self.config
        lower = None if delta is None else SingleAdapter.of(delta, model.device, model.dtype)
        estimator = estimator_of(model, delta)
        tree = SimulatedTree(estimates=estimator is not None) if config.miss_policy is MissPolicy.BACKOFF else None
        tokenizer, chat = load_tokenizer(self.folder), load_chat(self.folder)
        max_tokens = min(config.max_tokens, model.spec.max_positions)

        def preprocessor(view: ViewWindows | None) -> Preprocessor:
            states_of = partial(LowerStates, model, delta=lower, yield_hook=yield_hook, view=view, estimator=estimator)
            return Preprocessor(tokenizer, model.spec, max_tokens, states_of, chat)

        return preprocessor(tree.view_train if tree else None), preprocessor(tree.view_other if tree else None)

    def _identity(self, base: str, dtype: torch.dtype) -> str:
        """Digest of everything that decides the result of the training."""
        # The dtype behind `auto` differs from machine to machine, and another machine may resume the training.
        resolved = dataclasses.replace(self.config, dtype=str(dtype).removeprefix("torch."))
        digest = hashlib.sha256(f"{base}\n{json.dumps(resolved.to_json())}\n".encode())
        for name, adapter in (("delta", self.delta), ("start", self.start)):
            for key, tensor in adapter.tensors().items() if adapter else ():
                digest.update(f"{name} {key}".encode() + tensor.tobytes())
        for example in itertools.chain(self.train, [None], self.dev):
            digest.update(repr(example).encode())
        return digest.hexdigest()


def _split(
    examples: Sequence[AnyExample], dev: Sequence[AnyExample], config: TrainConfig
) -> tuple[list[AnyExample], list[AnyExample]]:
    """The training set and the dev set. Raises `InvalidInput`."""
    kind = kind_of(examples)
    if not dev:
        return split_dev(examples, config.dev_share)
    if kind_of(dev) is not kind:
        raise InvalidInput(f"the dev set is for {kind_of(dev)}, the training set for {kind}")
    train = without_texts(dev, examples)
    require_known_labels(dev, train)
    return train, list(dev)


def _check_model(kind: TaskKind, config: TrainConfig, spec: HPLMSpec, delta: Adapter | None) -> None:
    """Raises `InvalidInput` if a model of this family does not learn the task in this way, `AdapterRefused`."""
    require_learnable(kind, spec.family, "the base", "task")
    if spec.family.decodes and config.kind is not AdapterKind.LORA:
        raise InvalidInput(f"a {spec.family} learns by a LoRA, not by kind {config.kind}", param="kind")
    if config.lowest_layer >= spec.layers:
        raise InvalidInput(f"lowest_layer must be one of the model's {spec.layers}", param="lowest_layer")
    if delta is not None:
        check_delta(delta, spec)
