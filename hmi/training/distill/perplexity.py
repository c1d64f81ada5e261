"""A decoder's perplexity, and its divergence from the model that it was made from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

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
        """
        Args:
            logits, original: The heads of the two models.
            ours, theirs: The last layers' states `[B, T, H]`.
            ids: int64 `[B, T]`, with their mask; padding is on the right.
        """
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
