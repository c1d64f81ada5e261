"""From logits to the next tokens, each sequence by its own parameters and its own chance.

What a sequence draws depends on its seed and on how many tokens it has drawn, and on nothing else: not on who runs
beside it, nor on whether it was stopped and read again in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hmi.items import Sampling

__all__ = ["Chosen", "choose_tokens", "most_likely"]


_COLDEST = 1e-6  # below it there is no difference to the most likely token
_LIKELY = 1024  # tokens among which a share of the probability is looked for, before all are put in order
_BLOCK = 256  # tokens


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Attributes:
    ids: int64 `[B]`.
    logprobs: float32 `[B]`, of the model's own distribution, before temperature and cuts.
    """

    ids: Tensor
    logprobs: Tensor


def choose_tokens(logits: Tensor, parameters: Sequence[Sampling], drawn: Sequence[int]) -> Chosen:
    """
    Args:
        logits: `[B, vocabulary]`.
        drawn: How many tokens each sequence has drawn before.
    """
    wide = logits.float()
    ids = wide.argmax(-1)
    sampled = [row for row, each in enumerate(parameters) if not each.is_greedy]
    if sampled:
        rows = torch.tensor(sampled, device=logits.device)
        some = [parameters[row] for row in sampled]
        chances = [each.chance(drawn[row]) for each, row in zip(some, sampled, strict=True)]
        # From the highest downwards: divided by next to nothing, others fall to nothing and none rises to infinity.
        heights = wide.index_select(0, rows) - wide[rows, ids[rows]][:, None]
        heights /= _column([max(each.temperature, _COLDEST) for each in some], heights)
        ids.index_copy_(0, rows, _draw(heights, some, chances))
    logprobs = wide.gather(1, ids[:, None])[:, 0] - wide.logsumexp(-1)
    return Chosen(ids, logprobs)


def most_likely(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` most likely tokens of each row of `[B, vocabulary]`: ids int64 and log-probabilities float32
    `[B, count]`, the most likely first."""
    wide = logits.float()
    values, ids = wide.topk(count, -1)
    return ids, values - wide.logsumexp(-1, keepdim=True)


def _draw(heights: Tensor, parameters: Sequence[Sampling], chances: Sequence[float]) -> Tensor:
    """By logits `[B, vocabulary]` of which each row's highest is 0: ids int64 `[B]`.

    Rows are computed beside those that are cut alike, and each by its own parameters alone.
    """
    vocabulary = heights.shape[1]
    groups: dict[int, list[int]] = defaultdict(list)
    for row, params in enumerate(parameters):
        groups[_looked_at(params, vocabulary)].append(row)
    ids = torch.empty(len(parameters), dtype=torch.int64, device=heights.device)
    for count, members in groups.items():
        rows = torch.tensor(members, device=heights.device)
        some = heights if len(members) == len(parameters) else heights.index_select(0, rows)
        wanted = _column([chances[row] for row in members], some, torch.float64)
        if count:
            found = _draw_cut(some, count, [parameters[row] for row in members], wanted)
        else:
            found = _draw_from_all(some.softmax(-1), wanted)
        ids.index_copy_(0, rows, found)
    return ids


def _looked_at(params: Sampling, vocabulary: int) -> int:
    """How many of the likeliest tokens are put in order for it; 0: none, nothing is cut off."""
    if 0 < params.top_k < vocabulary:
        return min(1 << (params.top_k - 1).bit_length(), vocabulary)  # few sizes, so that rows stay together
    return min(_LIKELY, vocabulary) if params.top_p < 1 else 0


def _draw_from_all(probabilities: Tensor, chances: Tensor) -> Tensor:
    """In the order of ids: first one of the blocks, then one of its tokens."""
    padded = torch.nn.functional.pad(probabilities, (0, -probabilities.shape[1] % _BLOCK))
    blocks = padded.view(len(padded), -1, _BLOCK)
    reached = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    block = _place(reached, reached[:, -1:] * chances)
    within = blocks[torch.arange(len(blocks), device=blocks.device), block[:, 0]].double().cumsum(-1)
    before = torch.nn.functional.pad(reached, (1, 0)).gather(1, block)
    return (block * _BLOCK + _place(within, reached[:, -1:] * chances - before))[:, 0]


def _draw_cut(heights: Tensor, count: int, parameters: Sequence[Sampling], chances: Tensor) -> Tensor:
    """Of the `count` likeliest; of all where the share that is asked for is more than they have."""
    vocabulary = heights.shape[1]
    order = _likeliest(heights, count)
    probabilities = heights.softmax(-1).gather(1, order).double()
    kept = _column([each.top_k or vocabulary for each in parameters], heights, torch.int64)
    places = torch.arange(count, device=heights.device)
    probabilities.masked_fill_(places >= kept, 0.0)
    reached = probabilities.cumsum(-1)
    # Of what top k leaves.
    share = _column([each.top_p for each in parameters], heights, torch.float64) * torch.where(
        kept < vocabulary, reached[:, -1:], 1.0
    )
    # A token is in as long as those before it have not reached the share: the first one always is.
    cut = probabilities.masked_fill((reached - probabilities >= share) & (places > 0), 0.0).cumsum(-1)
    ids = order.gather(1, _place(cut, cut[:, -1:] * chances))[:, 0]
    if count < vocabulary and len(short := (reached[:, -1] < share[:, 0]).nonzero()[:, 0]):
        some = [parameters[row] for row in short.tolist()]
        ids[short] = _draw_cut(heights[short], vocabulary, some, chances[short])
    return ids


def _likeliest(heights: Tensor, count: int) -> Tensor:
    """Ids int64 `[B, count]`, the likeliest first; of equal ones that with the lower id, everywhere."""
    if count == heights.shape[1]:
        return torch.sort(heights, dim=-1, descending=True, stable=True).indices
    # As the bits of a double, which are in the order of what they stand for and have room for an id in the lowest 29.
    keys = heights.abs().double().view(torch.int64)
    keys |= torch.arange(heights.shape[1], device=heights.device)
    return keys.topk(count, dim=-1, largest=False).values & (2**29 - 1)


def _place(reached: Tensor, wanted: Tensor) -> Tensor:
    """Where in ascending sums float64 `[B, n]` the wanted ones `[B, 1]` lie; never at what adds nothing."""
    below = torch.minimum(wanted, reached[:, -1:] * (1 - 2**-52))
    return torch.searchsorted(reached, below, right=True)


def _column(values: Sequence[float], like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=like.device)[:, None]
