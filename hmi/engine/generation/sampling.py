"""From logits to the next tokens, each sequence by its own wishes and its own chance.

What a sequence draws depends on its seed and on how many tokens it has drawn, and on nothing else: not on who runs
beside it, nor on whether it was stopped and read again in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hmi.engine.request import Sampling

__all__ = ["Chosen", "choose_tokens", "most_likely"]


_COLDEST = 1e-6  # below it there is no difference to the most likely token


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Attributes:
    ids: int64 `[B]`.
    logprobs: float32 `[B]`, of the model's own distribution, before temperature and cuts.
    """

    ids: Tensor
    logprobs: Tensor


def choose_tokens(logits: Tensor, wishes: Sequence[Sampling], drawn: Sequence[int]) -> Chosen:
    """
    Args:
        logits: `[B, vocabulary]`.
        drawn: How many tokens each sequence has drawn before.
    """
    wide = logits.float()
    ids = wide.argmax(-1)
    sampled = [row for row, each in enumerate(wishes) if not each.is_greedy]
    if sampled:
        rows = torch.tensor(sampled, device=logits.device)
        some = [wishes[row] for row in sampled]
        chances = [each.chance(drawn[row]) for each, row in zip(some, sampled, strict=True)]
        ids.index_copy_(0, rows, _draw(wide.index_select(0, rows), some, chances))
    logprobs = wide.gather(1, ids[:, None])[:, 0] - wide.logsumexp(-1)
    return Chosen(ids, logprobs)


def most_likely(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` most likely tokens of each row of `[B, vocabulary]`: ids int64 and log-probabilities float32
    `[B, count]`, the most likely first."""
    wide = logits.float()
    values, ids = wide.topk(count, -1)
    return ids, values - wide.logsumexp(-1, keepdim=True)


def _draw(logits: Tensor, wishes: Sequence[Sampling], chances: Sequence[float]) -> Tensor:
    """ids int64 `[B]`"""

    def column(values: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=logits.device)[:, None]

    # Sorted, so that what is cut off is a tail, and so that equal logits are drawn from in one order everywhere.
    values, order = torch.sort(logits, dim=-1, descending=True, stable=True)
    places = torch.arange(values.shape[1], device=logits.device)
    kept = column([each.top_k or values.shape[1] for each in wishes], torch.int64)
    values = values.masked_fill(places >= kept, -torch.inf)
    # From the highest downwards: divided by next to nothing, others fall to nothing and none rises to infinity.
    values = (values - values[:, :1]) / column([max(each.temperature, _COLDEST) for each in wishes])
    probabilities = values.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    # A token is in as long as those before it have not reached the share: the first one always is.
    probabilities = probabilities.masked_fill(before >= column([each.top_p for each in wishes]), 0.0)
    probabilities[:, 0] = probabilities[:, 0].clamp(min=torch.finfo(torch.float32).tiny)
    reached = probabilities.double().cumsum(-1)
    wanted = reached[:, -1:] * column(chances, torch.float64)
    place = torch.searchsorted(reached, wanted, right=True).clamp(max=values.shape[1] - 1)
    ids: Tensor = order.gather(1, place)[:, 0]
    return ids
