"""A domain delta from a domain's text: a LoRA on the lower layers, distilled from an ordinary full model.

A window of three tokens does not show what the whole sentence shows, and the base model makes up for it as well as it
can for all text alike. For one domain's text the lower layers can do better: the delta is trained so that the states
that follow from windows' rows come nearer to those of the full model on the same text: of the pretrained model, or of
one that was fine-tuned for the domain, whose knowledge then goes into the rows. No labels are needed, and the base
model stays as it is.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
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
from hmi.training.delta.config import DeltaConfig, DeltaReport, TrainedDelta
from hmi.training.delta.trainable import TrainableDelta
from hmi.training.distill import EstimatorConfig, Teacher, fit_estimator, measure_fidelity
from hmi.training.loop import MAX_GRADIENT_NORM, batches_by_length, learning_rate_factor
from hmi.training.lower import WindowBatch, encode, estimator_of, leave_one_out, relative_error, states_error
from hmi.training.reports import TrainProgress

__all__ = ["train_delta"]

_HELD_OUT = 10  # every tenth text judges, the others are learnt from
_MOST_JUDGES = 1000
_ESTIMATOR_RATE = 1e-3  # it only has to be moved


def train_delta(
    folder: Path,
    texts: Sequence[str],
    config: DeltaConfig,
    *,
    above: Adapter | None = None,
    teacher: Path | None = None,
    teacher_adapter: Adapter | None = None,
    on_progress: Callable[[TrainProgress], None] = lambda progress: None,
) -> TrainedDelta:
    """Train a domain delta for the base artifact in `folder` on a domain's text, one sentence or so each.

    Args:
        above: The nearest delta on the line of the domain's ancestors, which it then refines.
        teacher: Transformers folder of the full model to agree with: the pretrained one that the base was made from, or
            the domain's own. None takes the base's own layers, which are the pretrained model's unless it was
            distilled.
        teacher_adapter: On all layers of the pretrained model in `teacher`; both together are the domain's own full
            model. What it does below k goes into the delta, see `Teacher`.
        on_progress: Told after every step; what it raises ends the training.

    Raises:
        InvalidInput: k = 0 (nothing is looked up), too little text to learn from and to judge by, a distilled base
            and no teacher, or training that diverges.
        AdapterRefused: `above` is no delta of this base's.
        Corrupt: A damaged base.
    """
    started = time.monotonic()
    device = resolve_device(config.device)
    model = load_hplm(folder, device, resolve_dtype(config.dtype, device))
    if not model.spec.k:
        raise InvalidInput("a base with k = 0 has no lower layers, and so no domain deltas")
    seen, judges = _parts(texts, config.steps * config.batch_size)
    if above is not None:
        check_delta(above, model.spec)
    full = _teacher(model, teacher, teacher_adapter)
    without = NoAdapters() if above is None else SingleAdapter.of(above, device, model.dtype)
    tokenizer = load_tokenizer(folder)
    max_tokens = min(config.max_tokens, model.spec.max_positions)
    has_end = not model.spec.family.decodes
    learnt, judging = (encode(tokenizer, each, max_tokens, has_end=has_end) for each in (seen, judges))
    generator = torch.Generator().manual_seed(config.seed)
    trainable = TrainableDelta(model.spec, rank=config.rank, sites=config.sites, generator=generator, above=above).to(
        device
    )
    before = measure_fidelity(model, judging, without, teacher=full)
    losses = _fit(model, full, trainable, without, learnt, config, generator, on_progress)
    delta = trainable.export()
    check_delta(delta, model.spec)
    after = measure_fidelity(model, judging, SingleAdapter.of(delta, device, model.dtype), teacher=full)
    error = None
    if model.spec.estimator_size:
        estimator = _estimator(model, delta, above, learnt, judging, config)
        delta, error = dataclasses.replace(delta, estimator=estimator), float(estimator.error[0])
    seconds = time.monotonic() - started
    return TrainedDelta(delta, DeltaReport(len(learnt), len(judging), before, after, losses, error, seconds))


def _estimator(
    model: HPLM,
    delta: Adapter,
    above: Adapter | None,
    learnt: Sequence[NDArray[np.int64]],
    judging: Sequence[NDArray[np.int64]],
    config: DeltaConfig,
) -> Estimator:
    start = None if above is None else estimator_of(model, above)
    return fit_estimator(
        model,
        learnt,
        judging,
        EstimatorConfig(steps=config.estimator_steps, learning_rate=_ESTIMATOR_RATE, seed=config.seed),
        SingleAdapter.of(delta, model.device, model.dtype),
        start=start if start is not None else estimator_of(model, None),
    ).weights()


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


def _parts(texts: Sequence[str], most: int) -> tuple[list[str], list[str]]:
    """At most `most` to learn from, and what judges; a text that occurs twice is in one part only.

    Raises `InvalidInput`.
    """
    distinct = list(dict.fromkeys(text for text in texts if text.strip()))
    if len(distinct) < 2:
        raise InvalidInput("a domain delta needs at least two different texts")
    judges = distinct[::_HELD_OUT]
    seen = [text for number, text in enumerate(distinct) if number % _HELD_OUT]
    return seen[:: -(-len(seen) // most)], judges[:: -(-len(judges) // _MOST_JUDGES)]


def _fit(
    model: HPLM,
    teacher: Teacher,
    trainable: TrainableDelta,
    without: TrainingAdapters,
    sequences: Sequence[NDArray[np.int64]],
    config: DeltaConfig,
    generator: torch.Generator,
    on_progress: Callable[[TrainProgress], None],
) -> tuple[float, ...]:
    optimizer = torch.optim.AdamW(trainable.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config.steps))
    sights = _Sights(sequences, looks_back=model.spec.family.decodes) if config.left_out else None
    losses = []
    started = time.monotonic()
    for done, chosen in enumerate(itertools.islice(_batches(sequences, config, generator), config.steps), start=1):
        rng = np.random.default_rng([config.seed, done])
        windows = sights.windows(chosen, rng.random(len(chosen)) < config.left_out) if sights else None
        some = [sequences[number] for number in chosen]
        batch = WindowBatch.of(some, model.device, looks_back=model.spec.family.decodes, windows=windows)
        loss = _loss(model, teacher, trainable.maths(model.dtype), without, batch, config.nearness)
        if not math.isfinite(float(loss.detach())):
            raise InvalidInput(
                f"the loss of step {done} is not finite; take a lower learning rate", param="learning_rate"
            )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trainable.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        left = (time.monotonic() - started) / done * (config.steps - done)
        on_progress(TrainProgress(done, config.steps, losses[-1], left))
    return tuple(float(np.mean(part)) for part in np.array_split(losses, min(10, len(losses))))


class _Sights:
    """How a tree sees each of some texts: one that knows it, and one that was built of all the others."""

    def __init__(self, sequences: Sequence[NDArray[np.int64]], *, looks_back: bool = False) -> None:
        lengths = np.asarray([len(ids) for ids in sequences], np.int64)
        whole = window_keys(np.concatenate(sequences), lengths, looks_back=looks_back)
        ends = np.cumsum(lengths)[:-1]
        self._known = np.split(whole, ends)
        self._left_out = np.split(leave_one_out(whole, lengths), ends)

    def windows(self, chosen: Sequence[int], left_out: NDArray[np.bool_]) -> Keys:
        """Of all tokens of the chosen texts, in their order."""
        sights = zip(chosen, left_out, strict=True)
        return np.concatenate([(self._left_out if without else self._known)[number] for number, without in sights])


def _batches(
    sequences: Sequence[NDArray[np.int64]], config: DeltaConfig, generator: torch.Generator
) -> Iterator[list[int]]:
    """Without end, pass after pass."""
    lengths = np.asarray([len(ids) for ids in sequences], np.int64)
    while True:
        yield from batches_by_length(lengths, config.batch_size, generator)


def _loss(
    model: HPLM,
    teacher: Teacher,
    delta: TrainingAdapters,
    without: TrainingAdapters,
    batch: WindowBatch,
    nearness: float,
) -> Tensor:
    """Squared relative error against the full model, the mean over the lower and every upper layer's states.

    `nearness` times that of the rows against those `without` the delta comes on top.
    """
    full = teacher.states(batch)
    rows = model.lower(batch.windows, delta)  # [windows, H]
    ours = list(model.upper_states(model.merge(rows[batch.index]), batch.mask, teacher.adapters))
    each_token = model.spec.family.decodes
    loss = states_error(ours, full, batch.mask, each_token=each_token)
    if nearness:
        with torch.no_grad():
            near = model.lower(batch.windows, without)
        loss = loss + nearness * relative_error(rows, near, each_token=each_token)
    return loss
