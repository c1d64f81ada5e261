"""A domain delta from a domain's text: a LoRA on the lower layers, distilled from an ordinary full model.

A window of three tokens lacks the context of its sentence; the base model makes up for it as well as it can for all
text. The delta brings the states that follow from the windows' rows nearer to those of the full model on one domain's
text: the pretrained model, or one that was fine-tuned for the domain. No labels are needed.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters import Adapter, Estimator
from hmi.adapters.formats import check_delta
from hmi.adapters.maths import NoAdapters, SingleAdapter, TrainingAdapters
from hmi.devices import resolve_device, resolve_dtype
from hmi.errors import InvalidInput
from hmi.knowledge import Keys, window_keys
from hmi.models.families import HPLM, load_hplm, load_tokenizer
from hmi.spec import Site
from hmi.training.distill import (
    EstimatorConfig,
    Fidelity,
    Teacher,
    at_most,
    fit_estimator,
    measure_fidelity,
    split_texts,
)
from hmi.training.loop import EpochBatches, Trainer
from hmi.training.lower import WindowBatch, encode, estimator_of, leave_one_out, relative_error, states_error
from hmi.training.plan import require_numbers
from hmi.training.reports import OnProgress
from hmi.training.trainable import TrainableDelta

_EVERY = 10  # every tenth text is held out
_MOST_DEV = 1000
_ESTIMATOR_RATE = 1e-3  # low, since it begins with the base's
Sequences = Sequence[NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class DeltaConfig:
    """How a delta is trained.

    Raises `InvalidInput` whose `param` names the field.
    """

    rank: int = 16  # of every LoRA pair
    steps: int = 300  # of the optimizer
    batch_size: int = 32  # texts in one step
    learning_rate: float = 4e-3  # peak of the schedule
    # Weight, in the loss, of the squared relative distance between the rows and those of the parent domain. Rows within
    # the trees' tolerance are not stored again; at 1, rows of MiniLM with k = 3 moved half as far as at 0, for four
    # fifths of the gain. 0 for the root's own delta, which has no parent.
    nearness: float = 1.0
    # Share of the texts that get the n-grams of a tree built from all other texts, so that shorter n-grams are good
    # replacements under the miss policy `backoff`.
    left_out: float = 0.5
    sites: tuple[Site, ...] = (Site.Q, Site.V, Site.FC1, Site.FC2)  # linear layers with a pair, in every lower layer
    estimator_steps: int = 400  # for the delta's own estimator, if the base has one, with which it begins
    max_tokens: int = 128  # longer texts are cut, special tokens included
    seed: int = 0  # with the same text, machine and number of threads it gives the same weights
    device: str = "cpu"  # see `hmi.devices`
    dtype: str = "auto"  # of the frozen base model and the activations; the trained weights are float32

    def __post_init__(self) -> None:
        least = dict.fromkeys(("rank", "steps", "batch_size", "estimator_steps", "max_tokens"), 1)
        require_numbers(self, least, positive=("learning_rate",), shares=("left_out",))
        if not 0 <= self.nearness < math.inf:
            raise InvalidInput(f"nearness must be a number from 0, not {self.nearness}", param="nearness")
        if not self.sites:
            raise InvalidInput("a delta needs at least one linear layer to sit on", param="sites")


@dataclass(frozen=True, slots=True)
class DeltaReport:
    """The outcome of a training."""

    texts: int  # trained on
    dev_texts: int  # others, which measured the fidelity
    # Fidelity of the domain's rows without and with the delta. A delta whose `after.upper` is not below `before.upper`
    # is not worth its tables.
    before: Fidelity
    after: Fidelity
    losses: tuple[float, ...]  # means over each tenth of the steps
    estimate_error: float | None  # `RowEstimator.error` on the dev texts; None without an estimator
    seconds: float  # from loading the base model to the end


@dataclass(frozen=True, slots=True)
class TrainedDelta:
    delta: Adapter
    report: DeltaReport


def train_delta(
    folder: Path,
    texts: Sequence[str],
    config: DeltaConfig,
    *,
    above: Adapter | None = None,
    teacher: Path | None = None,
    teacher_adapter: Adapter | None = None,
    on_progress: OnProgress = lambda progress: None,
) -> TrainedDelta:
    """Train a domain delta for the base artifact in `folder` on a domain's text, about one sentence each.

    Args:
        above: The nearest delta among the domain's ancestors, which the new one refines.
        teacher: Transformers folder of the full model to agree with: the pretrained one that the base was made from, or
            the domain's own. None takes the base's own layers, which are the pretrained model's unless it was
            distilled.
        teacher_adapter: On all layers of the pretrained model in `teacher`; both together are the domain's own full
            model. Its part below k goes into the delta, see `Teacher`.

    Raises: `InvalidInput` (k = 0, too little text, a distilled base without a teacher, training that diverges),
        `AdapterRefused` (`above` is no delta of this base), `Corrupt` (the base).
    """
    started = time.monotonic()
    device = resolve_device(config.device)
    model = load_hplm(folder, device, resolve_dtype(config.dtype, device))
    spec = model.spec
    if not spec.k:
        raise InvalidInput("a base with k = 0 has no lower layers, and so no domain deltas")
    seen, others = split_texts(texts, _EVERY, _MOST_DEV, "a domain delta")
    if above is not None:
        check_delta(above, spec)
    full = _teacher(model, teacher, teacher_adapter)
    without = NoAdapters() if above is None else SingleAdapter.of(above, device, model.dtype)
    tokenizer, has_end = load_tokenizer(folder), not spec.family.decodes
    longest = min(config.max_tokens, spec.max_positions)
    seen = at_most(seen, config.steps * config.batch_size)
    learnt, held_out = (encode(tokenizer, each, longest, has_end=has_end) for each in (seen, others))
    before = measure_fidelity(model, held_out, without, teacher=full)
    training = _DeltaTraining(model, full, without, learnt, config)
    delta, losses = training.run(above, on_progress)
    check_delta(delta, spec)
    after = measure_fidelity(model, held_out, SingleAdapter.of(delta, device, model.dtype), teacher=full)
    error = None
    if spec.estimator_size:
        estimator = _estimator(model, delta, above, learnt, held_out, config)
        delta, error = dataclasses.replace(delta, estimator=estimator), float(estimator.error[0])
    seconds = time.monotonic() - started
    return TrainedDelta(delta, DeltaReport(len(learnt), len(held_out), before, after, losses, error, seconds))


def _teacher(model: HPLM, folder: Path | None, adapter: Adapter | None) -> Teacher:
    """Raises `InvalidInput`, `AdapterRefused`."""
    if folder is not None:
        return Teacher.of_folder(folder, model.spec, model.device, model.dtype, adapter)
    if adapter is not None or model.spec.distilled:
        reason = (
            "the teacher's adapter needs the pretrained model that it was trained on"
            if adapter is not None
            else "this base was distilled, so its layers are not the pretrained model's any more"
        )
        raise InvalidInput(
            f"{reason}: name that model, or the domain's own full model, as the teacher", param="teacher"
        )
    return Teacher(model)


def _estimator(
    model: HPLM, delta: Adapter, above: Adapter | None, learnt: Sequences, held_out: Sequences, config: DeltaConfig
) -> Estimator:
    start = None if above is None else estimator_of(model, above)
    return fit_estimator(
        model,
        learnt,
        held_out,
        EstimatorConfig(steps=config.estimator_steps, learning_rate=_ESTIMATOR_RATE, seed=config.seed),
        SingleAdapter.of(delta, model.device, model.dtype),
        start=start if start is not None else estimator_of(model, None),
    ).weights()


@dataclass(frozen=True, slots=True)
class _DeltaTraining:
    model: HPLM
    teacher: Teacher
    without: TrainingAdapters  # maths of the rows that the domain has without the new delta
    sequences: Sequences  # token ids of the texts to train on
    config: DeltaConfig

    def run(self, above: Adapter | None, on_progress: OnProgress) -> tuple[Adapter, tuple[float, ...]]:
        """The delta, and the loss of each tenth of the steps."""
        config, spec = self.config, self.model.spec
        generator = torch.Generator().manual_seed(config.seed)
        delta = TrainableDelta(spec, rank=config.rank, sites=config.sites, generator=generator, above=above)
        delta.to(self.model.device)
        lengths = np.asarray([len(ids) for ids in self.sequences], np.int64)
        batches = EpochBatches(lengths, config.batch_size, generator)
        views = _TreeViews(self.sequences, looks_back=spec.family.decodes) if config.left_out else None

        def loss_of(step: int) -> Tensor:
            chosen = batches.batch(step)
            rng = np.random.default_rng([config.seed, step + 1])
            windows = views.windows(chosen, rng.random(len(chosen)) < config.left_out) if views else None
            some = [self.sequences[number] for number in chosen]
            batch = WindowBatch.of(some, self.model.device, looks_back=spec.family.decodes, windows=windows)
            return self.loss(delta.maths(self.model.dtype), batch)

        weights = list(delta.parameters())
        optimizer = torch.optim.AdamW(weights, lr=config.learning_rate)
        trainer = Trainer(weights, optimizer, config.steps, on_progress)
        trainer.run(loss_of)
        return delta.export(), trainer.state.loss_curve()

    def loss(self, delta: TrainingAdapters, batch: WindowBatch) -> Tensor:
        """Squared relative error against the full model, the mean over the lower and every upper layer's states, plus
        `nearness` times the squared relative distance to the rows without the delta."""
        model = self.model
        full = self.teacher.states(batch)
        rows = model.lower(batch.windows, delta)  # [windows, H]
        ours = list(model.upper_states(model.merge(rows[batch.index]), batch.mask, self.teacher.adapters))
        each_token = model.spec.family.decodes
        loss = states_error(ours, full, batch.mask, each_token=each_token)
        if self.config.nearness:
            with torch.no_grad():
                near = model.lower(batch.windows, self.without)
            loss = loss + self.config.nearness * relative_error(rows, near, each_token=each_token)
        return loss


class _TreeViews:
    """The n-grams of each text, in a tree that contains the text and in one built from all the others."""

    def __init__(self, sequences: Sequences, *, looks_back: bool = False) -> None:
        lengths = np.asarray([len(ids) for ids in sequences], np.int64)
        whole = window_keys(np.concatenate(sequences), lengths, looks_back=looks_back)
        ends = np.cumsum(lengths)[:-1]
        self._known = np.split(whole, ends)
        self._left_out = np.split(leave_one_out(whole, lengths), ends)

    def windows(self, chosen: Sequence[int], left_out: NDArray[np.bool_]) -> Keys:
        """Of all tokens of the chosen texts, in order."""
        pairs = zip(chosen, left_out, strict=True)
        return np.concatenate([(self._left_out if without else self._known)[number] for number, without in pairs])
