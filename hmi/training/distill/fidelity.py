"""How far an hPLM's states are from those of an ordinary model, by default of its own layers without windows.

For a decoder also its perplexity, and its divergence from that model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hmi.adapters.maths import TrainingAdapters, mean_pool
from hmi.models.families import HPLM, HGpt
from hmi.training.distill.teacher import Teacher
from hmi.training.lower import LowerStates, floor_sizes

_BATCH = 64  # texts
_LOGITS = 512  # tokens whose logits are held at once
_LARGEST = 700.0  # its exponential is finite
Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class PerplexityReport:
    """Over all tokens of a text but the first."""

    perplexity: float  # can be below `original`, since a distilled model is less certain
    original: float  # the unchanged model's
    divergence: float  # KL(original || ours) of the next token in nats, the mean
    agreement: float  # share of tokens where both models have the same most likely token


class PerplexitySums:
    """Sums over batches."""

    def __init__(self) -> None:
        self._sums = torch.zeros(4, dtype=torch.float64)  # -log p ours and the original's, divergence, agreement
        self._tokens = 0

    @torch.no_grad()
    def add(self, logits: Logits, ours: Tensor, original: Logits, theirs: Tensor, ids: Tensor, mask: Tensor) -> None:
        """Add a batch: the heads of both models, their last states `[B, T, H]`, ids `[B, T]`, padded on the right."""
        follows = mask[:, 1:]
        expected = ids[:, 1:][follows]
        self._tokens += len(expected)
        states = (ours[:, :-1][follows], theirs[:, :-1][follows])
        for some, others, targets in zip(*(torch.split(each, _LOGITS) for each in (*states, expected)), strict=True):
            one, other = logits(some).float().log_softmax(-1), original(others).float().log_softmax(-1)
            sums = (
                F.nll_loss(one, targets, reduction="sum"),
                F.nll_loss(other, targets, reduction="sum"),
                F.kl_div(one, other, reduction="sum", log_target=True),
                (one.argmax(-1) == other.argmax(-1)).sum(),
            )
            self._sums += torch.stack([each.double().cpu() for each in sums])

    def result(self) -> PerplexityReport | None:
        """None if no text had a second token."""
        if not self._tokens:
            return None
        ours, original, divergence, agreement = (self._sums / self._tokens).tolist()
        return PerplexityReport(math.exp(min(ours, _LARGEST)), math.exp(min(original, _LARGEST)), divergence, agreement)


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Relative errors |ours - full| / |full| on text that was not trained on."""

    layers: tuple[float, ...]  # over all tokens, of the upper layers' input and of each upper layer's states
    pooled: float  # of the mean over each text of the last layer's states
    perplexity: PerplexityReport | None = None  # of a decoder, with the full model's

    @property
    def lower(self) -> float:
        """Of the upper layers' input."""
        return self.layers[0]

    @property
    def upper(self) -> float:
        """Of the last layer's states."""
        return self.layers[-1]


@torch.no_grad()
def measure_fidelity(
    model: HPLM,
    sequences: Sequence[NDArray[np.int64]],
    delta: TrainingAdapters | None = None,
    *,
    teacher: Teacher | None = None,
) -> Fidelity:
    """Of a model with rows rounded as stored rows are, with a domain's `delta` in them.

    Without a teacher it is compared with its own layers without windows, which is the pretrained model if they were not
    trained.
    """
    teacher = teacher or Teacher(model)
    sums = PerplexitySums()

    def pairs() -> Iterator[tuple[Sequence[Tensor], Sequence[Tensor], Tensor]]:
        for full, merged, ids, mask in state_pairs(model, sequences, delta, teacher=teacher):
            ours, theirs = list(model.upper_states(merged, mask, teacher.adapters)), teacher.upper(full, mask)
            if isinstance(model, HGpt) and isinstance(teacher.model, HGpt):
                sums.add(model.logits, ours[-1], teacher.model.logits, theirs[-1], ids, mask)
            yield ours, theirs, mask

    found = compare_states(pairs(), each_token=model.spec.family.decodes)
    return dataclasses.replace(found, perplexity=sums.result())


def compare_states(
    batches: Iterable[tuple[Sequence[Tensor], Sequence[Tensor], Tensor]], *, each_token: bool = False
) -> Fidelity:
    """Of batches: our states and the full model's, the upper layers' input first, `[B, T, H]` each; and their mask.

    `each_token` as in `relative_error`, of whose mean the result is the root.
    """
    sums = []
    for ours, theirs, mask in batches:
        pairs = [(a[mask].float(), b[mask].float()) for a, b in zip(ours, theirs, strict=True)]
        pairs.append((mean_pool(ours[-1].float(), mask), mean_pool(theirs[-1].float(), mask)))
        sums.append(torch.tensor([_error_and_size(a, b, each_token=each_token) for a, b in pairs]).double())
    errors, sizes = torch.stack(sums).sum(0).T  # squared, of each layer and of the pooled states
    *layers, pooled = (errors / sizes).sqrt().tolist()
    return Fidelity(tuple(layers), pooled)


def _error_and_size(ours: Tensor, reference: Tensor, *, each_token: bool) -> tuple[float, float]:
    """Sums of `[n, H]`; their ratio is the squared relative error."""
    differences, sizes = (ours - reference).square().sum(-1), reference.square().sum(-1)
    if each_token:
        return float((differences / floor_sizes(sizes)).sum()), float(len(sizes))
    return float(differences.sum()), float(sizes.sum())


@torch.no_grad()
def state_pairs(
    model: HPLM,
    sequences: Sequence[NDArray[np.int64]],
    delta: TrainingAdapters | None = None,
    *,
    teacher: Teacher | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """In batches of similar length: the full model's states and the merged rows `[B, T, H]`, their ids and mask."""
    teacher = teacher or Teacher(model)
    ordered = sorted(sequences, key=len)
    states = LowerStates(model, ordered, delta)
    for start in range(0, len(ordered), _BATCH):
        merged, mask = states.batch(range(start, min(start + _BATCH, len(ordered))))
        ids = torch.zeros(mask.shape, dtype=torch.int64, device=mask.device)
        ids[mask] = torch.from_numpy(np.concatenate(ordered[start : start + _BATCH])).to(mask.device)
        yield teacher.lower(ids, mask), merged, ids, mask
