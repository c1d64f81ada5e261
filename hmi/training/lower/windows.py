"""A batch of texts as a teacher and a student read it, whole and window by window, and the error between both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.knowledge import Keys, unigram, unpack, window_keys, without_next, without_prev

# oneDNN prepares itself anew for every new number of rows, so numbers are rounded up.
_WINDOW_STEP = 128
_TOKEN_STEP = 8
_LEAST = 1e-6  # of the mean squared length
# Shares of the n-grams that replace windows of new text in a tree built from a few thousand sentences of its domain
# (`python -m benchmarks.coverage`); the tree holds the other windows.
_BACKOFF_SHARES = ((0.225, without_next), (0.225, without_prev), (0.25, unigram))


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Some sequences, padded, and their distinct windows."""

    ids: Tensor  # int64 `[B, T]`, 0 for padding
    mask: Tensor  # bool `[B, T]`, True for a real token
    windows: Tensor  # int64 `[n, 3]`, -1 for an absent neighbour; repeated from the start to a round number
    index: Tensor  # int64 `[B, T]`, the window of each token

    @classmethod
    def of(
        cls,
        sequences: Sequence[NDArray[np.int64]],
        device: torch.device | str = "cpu",
        *,
        looks_back: bool = False,
        windows: Keys | None = None,
        thinned: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> WindowBatch:
        """Pad sequences; `windows` are the n-grams of all their tokens in order, None computes them.

        `looks_back` for a decoder. A share `thinned` of the sequences loses neighbours, see `thin_windows`, by `rng`.
        """
        lengths = np.asarray([len(ids) for ids in sequences], np.int64)
        flat = np.concatenate(sequences)
        mask = np.arange(_round_up(int(lengths.max()), _TOKEN_STEP)) < lengths[:, None]  # [B, T]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = flat
        keys = window_keys(flat, lengths, looks_back=looks_back) if windows is None else windows
        if thinned and rng is not None:
            keys = thin_windows(keys, lengths, thinned, rng)
        distinct, place = np.unique(keys, return_inverse=True)
        unpacked = unpack(np.resize(distinct, _round_up(len(distinct), _WINDOW_STEP)))
        index = np.zeros(mask.shape, np.int64)
        index[mask] = place.reshape(-1)
        return cls(*(torch.from_numpy(each).to(device) for each in (ids, mask, unpacked, index)))


def thin_windows(keys: Keys, lengths: NDArray[np.int64], share: float, rng: np.random.Generator) -> Keys:
    """Windows `[n]` of sequences. A `share` of the sequences gets the n-grams of a tree that does not know the text:
    some whole windows, some bigrams, some unigrams."""
    thinned = np.repeat(rng.random(len(lengths)) < share, lengths)
    drawn = rng.random(len(keys))
    some, below = keys.copy(), 0.0
    for part, shorter in _BACKOFF_SHARES:
        chosen = thinned & (drawn >= below) & (drawn < below + part)
        some[chosen] = shorter(keys[chosen])
        below += part
    return some


def relative_error(ours: Tensor, reference: Tensor, *, each_token: bool = False) -> Tensor:
    """|ours - reference|^2 / |reference|^2 over all values of `[tokens, H]`, float32.

    `each_token` gives the mean of each token's own error: the states of a decoder's first token are a hundred times as
    long as the others' (Xiao et al., Streaming Language Models with Attention Sinks, 2024) and would dominate a sum.
    """
    differences, sizes = (ours.float() - reference.float()).square(), reference.float().square()
    if each_token:
        return (differences.sum(-1) / floor_sizes(sizes.sum(-1))).mean()
    return differences.sum() / sizes.sum()


def floor_sizes(sizes: Tensor) -> Tensor:
    """Squared lengths `[tokens]` with a lower bound, so that states of zeros give no infinite error."""
    return sizes.clamp(min=max(_LEAST * float(sizes.mean()), torch.finfo(torch.float32).tiny))


def states_error(
    ours: Sequence[Tensor], reference: Sequence[Tensor], mask: Tensor, *, each_token: bool = False
) -> Tensor:
    """Mean over layers of the `relative_error` of their states `[B, T, H]` at real tokens."""
    errors = [relative_error(a[mask], b[mask], each_token=each_token) for a, b in zip(ours, reference, strict=True)]
    return torch.stack(errors).mean()


def _round_up(count: int, step: int) -> int:
    return -(-count // step) * step
