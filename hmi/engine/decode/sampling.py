"""From logits to the next tokens, each sequence by its own parameters and its own random draw.

What a sequence draws depends on its seed and on how many tokens it has drawn, and on nothing else: not on its
batch-mates, nor on whether it was preempted in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.items import Sampling

_LOWEST_TEMPERATURE = 1e-6  # below it there is no difference to the most likely token
_LIKELY = 1024  # tokens among which a share of the probability is looked for, before all are sorted
_BLOCK = 256  # tokens


@dataclass(frozen=True, slots=True, eq=False)
class ChosenTokens:
    ids: Tensor  # int64 [B]
    logprobs: Tensor  # float32 [B], of the model's own distribution, before temperature and cuts


def choose_tokens(logits: Tensor, parameters: Sequence[Sampling], drawn: Sequence[int]) -> ChosenTokens:
    """Choose a token by each row of `[B, vocabulary]`; `drawn` is how many each sequence has drawn before."""
    wide = logits.float()
    ids = wide.argmax(-1)
    sampled = [row for row, each in enumerate(parameters) if not each.is_greedy]
    if sampled:
        rows = torch.tensor(sampled, device=logits.device)
        some = [parameters[row] for row in sampled]
        draws = [each.draw(drawn[row]) for each, row in zip(some, sampled, strict=True)]
        # Relative to the highest logit: divided by a tiny temperature, none of them becomes infinite.
        relative = wide.index_select(0, rows) - wide[rows, ids[rows]][:, None]
        relative /= _column([max(each.temperature, _LOWEST_TEMPERATURE) for each in some], relative)
        ids.index_copy_(0, rows, _sample(relative, some, draws))
    logprobs = wide.gather(1, ids[:, None])[:, 0] - wide.logsumexp(-1)
    return ChosenTokens(ids, logprobs)


def best_tokens(logits: Tensor, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `count` most likely tokens of each row of `[n, vocabulary]`: ids and log-probabilities `[n, count]`, the most
    likely first."""
    if not count:
        return np.zeros((len(logits), 0), np.int64), np.zeros((len(logits), 0), np.float32)
    wide = logits.float()
    values, ids = wide.topk(count, -1)
    return ids.cpu().numpy(), (values - wide.logsumexp(-1, keepdim=True)).cpu().numpy()


def _sample(relative: Tensor, parameters: Sequence[Sampling], draws: Sequence[float]) -> Tensor:
    """By logits `[B, vocabulary]` of which each row's highest is 0: ids int64 `[B]`.

    Rows are computed together with those that are cut alike, and each by its own parameters alone.
    """
    vocabulary = relative.shape[1]
    groups: dict[int, list[int]] = defaultdict(list)
    for row, params in enumerate(parameters):
        groups[_sorted_tokens(params, vocabulary)].append(row)
    ids = torch.empty(len(parameters), dtype=torch.int64, device=relative.device)
    for count, members in groups.items():
        rows = torch.tensor(members, device=relative.device)
        some = relative if len(members) == len(parameters) else relative.index_select(0, rows)
        drawn = _column([draws[row] for row in members], some, torch.float64)
        if count:
            found = _sample_cut(some, count, [parameters[row] for row in members], drawn)
        else:
            found = _sample_all(some.softmax(-1), drawn)
        ids.index_copy_(0, rows, found)
    return ids


def _sorted_tokens(params: Sampling, vocabulary: int) -> int:
    """How many of the most likely tokens are sorted for it; 0 where nothing is cut off."""
    if 0 < params.top_k < vocabulary:
        return min(1 << (params.top_k - 1).bit_length(), vocabulary)  # few sizes, so that rows stay together
    return min(_LIKELY, vocabulary) if params.top_p < 1 else 0


def _sample_all(probabilities: Tensor, draws: Tensor) -> Tensor:
    """In the order of ids: first one of the blocks, then one of its tokens."""
    padded = torch.nn.functional.pad(probabilities, (0, -probabilities.shape[1] % _BLOCK))
    blocks = padded.view(len(padded), -1, _BLOCK)  # [B, blocks, _BLOCK]
    sums = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    block = _place(sums, sums[:, -1:] * draws)
    within = blocks[torch.arange(len(blocks), device=blocks.device), block[:, 0]].double().cumsum(-1)
    before = torch.nn.functional.pad(sums, (1, 0)).gather(1, block)
    return (block * _BLOCK + _place(within, sums[:, -1:] * draws - before))[:, 0]


def _sample_cut(relative: Tensor, count: int, parameters: Sequence[Sampling], draws: Tensor) -> Tensor:
    """Of the `count` most likely tokens; of all where `top_p` is more than those have."""
    vocabulary = relative.shape[1]
    order = _most_likely(relative, count)  # [B, count]
    probabilities = relative.softmax(-1).gather(1, order).double()
    kept = _column([each.top_k or vocabulary for each in parameters], relative, torch.int64)
    places = torch.arange(count, device=relative.device)
    probabilities.masked_fill_(places >= kept, 0.0)
    sums = probabilities.cumsum(-1)
    # Of what top k leaves.
    share = _column([each.top_p for each in parameters], relative, torch.float64) * torch.where(
        kept < vocabulary, sums[:, -1:], 1.0
    )
    # A token is kept as long as those before it have not reached the share: the first one always is.
    cut = probabilities.masked_fill((sums - probabilities >= share) & (places > 0), 0.0).cumsum(-1)
    ids = order.gather(1, _place(cut, cut[:, -1:] * draws))[:, 0]
    if count < vocabulary and len(short := (sums[:, -1] < share[:, 0]).nonzero()[:, 0]):
        some = [parameters[row] for row in short.tolist()]
        ids[short] = _sample_cut(relative[short], vocabulary, some, draws[short])
    return ids


def _most_likely(relative: Tensor, count: int) -> Tensor:
    """Ids int64 `[B, count]`, the most likely first; of equal ones that with the lower id, on every device."""
    if count == relative.shape[1]:
        return torch.sort(relative, dim=-1, descending=True, stable=True).indices
    # The bits of doubles sort as their values do, and leave the lowest 29 for an id.
    keys = relative.abs().double().view(torch.int64)
    keys |= torch.arange(relative.shape[1], device=relative.device)
    return keys.topk(count, dim=-1, largest=False).values & (2**29 - 1)


def _place(sums: Tensor, values: Tensor) -> Tensor:
    """Where in ascending sums float64 `[B, n]` the values `[B, 1]` lie; never at one that adds nothing."""
    below = torch.minimum(values, sums[:, -1:] * (1 - 2**-52))
    return torch.searchsorted(sums, below, right=True)


def _column(values: Sequence[float], like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=like.device)[:, None]
