"""A batch of texts as the two models see it that are compared in training: whole, and window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.knowledge import Keys, unigram, unpack, window_keys, without_next, without_prev

__all__ = ["WindowBatch", "floored", "relative_error", "states_error", "thin_windows"]

# oneDNN prepares itself anew for every number of rows that it meets; so they are few.
_WINDOW_STEP = 128
_TOKEN_STEP = 8
_LEAST = 1e-6  # of the mean squared length
# What stands in for the windows of new text where a tree knows a few thousand sentences of its domain, by their share
# (`python -m benchmarks.coverage`); the others it knows whole.
_STAND_INS = ((0.225, without_next), (0.225, without_prev), (0.25, unigram))


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Some sequences, padded, and their distinct windows.

    Attributes:
        ids: int64 `[B, T]`, 0 where nothing stands.
        mask: bool `[B, T]`, True = a real token.
        windows: int64 `[n, 3]`, -1 for an absent neighbour; the last ones may be there twice, and not asked for.
        index: int64 `[B, T]`, the window of each token.
    """

    ids: Tensor
    mask: Tensor
    windows: Tensor
    index: Tensor

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
        """
        Args:
            looks_back: The windows are a decoder's.
            windows: Of all their tokens, in the order of the sequences, or what stands in for them.
            thinned: Share of the sequences whose windows lose neighbours, see `thin_windows`; needs `rng`.
        """
        lengths = np.asarray([len(ids) for ids in sequences], np.int64)
        flat = np.concatenate(sequences)
        mask = np.arange(_filled(int(lengths.max()), _TOKEN_STEP)) < lengths[:, None]  # [B, T]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = flat
        wanted = window_keys(flat, lengths, looks_back=looks_back) if windows is None else windows
        if thinned and rng is not None:
            wanted = thin_windows(wanted, lengths, thinned, rng)
        distinct, place = np.unique(wanted, return_inverse=True)
        unpacked = unpack(np.resize(distinct, _filled(len(distinct), _WINDOW_STEP)))
        index = np.zeros(mask.shape, np.int64)
        index[mask] = place.reshape(-1)
        return cls(*(torch.from_numpy(each).to(device) for each in (ids, mask, unpacked, index)))


def thin_windows(keys: Keys, lengths: NDArray[np.int64], share: float, rng: np.random.Generator) -> Keys:
    """Windows `[n]` of sequences, a `share` of which is seen as a tree sees it that does not know the text: of its
    windows some are whole, some a bigram, and some the token alone."""
    thinned = np.repeat(rng.random(len(lengths)) < share, lengths)
    drawn = rng.random(len(keys))
    some, below = keys.copy(), 0.0
    for part, shorter in _STAND_INS:
        chosen = thinned & (drawn >= below) & (drawn < below + part)
        some[chosen] = shorter(keys[chosen])
        below += part
    return some


def relative_error(ours: Tensor, reference: Tensor, *, each_token: bool = False) -> Tensor:
    """|ours - reference|^2 / |reference|^2 over all values of `[tokens, H]`, float32.

    Args:
        each_token: Of each token by itself, and the mean of these. The first token's states in a decoder are a hundred
            times as long as the others' (Xiao et al., Efficient Streaming Language Models with Attention Sinks, 2024),
            and would be all that a sum over tokens tells.
    """
    differences, sizes = (ours.float() - reference.float()).square(), reference.float().square()
    if each_token:
        return (differences.sum(-1) / floored(sizes.sum(-1))).mean()
    return differences.sum() / sizes.sum()


def floored(sizes: Tensor) -> Tensor:
    """Squared lengths `[tokens]`, those of next to nothing raised: a state of zeros is an error of no infinite size."""
    return sizes.clamp(min=max(_LEAST * float(sizes.mean()), torch.finfo(torch.float32).tiny))


def states_error(
    ours: Sequence[Tensor], reference: Sequence[Tensor], mask: Tensor, *, each_token: bool = False
) -> Tensor:
    """The mean over layers of the relative error of their states `[B, T, H]`, of real tokens alone.

    Args:
        each_token: As in `relative_error`.
    """
    errors = [relative_error(a[mask], b[mask], each_token=each_token) for a, b in zip(ours, reference, strict=True)]
    return torch.stack(errors).mean()


def _filled(count: int, step: int) -> int:
    return -(-count // step) * step
