"""How well a decoder foresees text, beside the model that it was made of."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Surprise"]

_LOGITS = 512  # tokens whose logits are held at once
Logits = Callable[[Tensor], Tensor]


class Surprise:
    """Sums, over all tokens that another one precedes, of -log of the probability that they were given, in nats."""

    def __init__(self) -> None:
        self._sums = [0.0, 0.0]
        self._tokens = 0

    @torch.no_grad()
    def add(self, logits: Logits, ours: Tensor, original: Logits, theirs: Tensor, ids: Tensor, mask: Tensor) -> None:
        """
        Args:
            logits, original: The heads of the two models.
            ours, theirs: The last layers' states `[B, T, H]`.
            ids: int64 `[B, T]`, with their mask; a text's tokens stand at its beginning.
        """
        follows = mask[:, 1:]
        targets = ids[:, 1:][follows]
        self._tokens += len(targets)
        for number, (head, states) in enumerate(((logits, ours), (original, theirs))):
            before = states[:, :-1][follows]
            for some, wanted in zip(before.split(_LOGITS), targets.split(_LOGITS), strict=True):
                self._sums[number] += float(F.cross_entropy(head(some).float(), wanted, reduction="sum"))

    def perplexity(self) -> tuple[float, float] | None:
        """Ours, and the original's; None where there was no token to foresee."""
        if not self._tokens:
            return None
        ours, theirs = (math.exp(min(each / self._tokens, 700.0)) for each in self._sums)  # no more is a number
        return ours, theirs
