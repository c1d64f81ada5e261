"""A batch of texts as the two models see it that are compared in training: whole, and window by window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters.maths import AdapterMaths, NoAdapters
from hmi.knowledge.ngrams import Keys, unigram, unpack, window_keys, without_next, without_prev
from hmi.models.bert import HBert

__all__ = ["WindowBatch", "full_states", "hide_neighbours", "relative_error", "upper_states"]

# oneDNN prepares itself anew for every number of rows that it meets; so they are few.
_WINDOW_STEP = 128
_TOKEN_STEP = 8


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
        hidden: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> WindowBatch:
        """
        Args:
            hidden: Share of the windows that lose a neighbour or both, see `hide_neighbours`; needs `rng`.
        """
        lengths = np.asarray([len(ids) for ids in sequences], np.int64)
        flat = np.concatenate(sequences)
        mask = np.arange(_filled(int(lengths.max()), _TOKEN_STEP)) < lengths[:, None]  # [B, T]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = flat
        wanted = window_keys(flat, lengths)
        if hidden and rng is not None:
            wanted = hide_neighbours(wanted, hidden, rng)
        keys, place = np.unique(wanted, return_inverse=True)
        windows = unpack(np.resize(keys, _filled(len(keys), _WINDOW_STEP)))
        index = np.zeros(mask.shape, np.int64)
        index[mask] = place.reshape(-1)
        return cls(*(torch.from_numpy(each).to(device) for each in (ids, mask, windows, index)))


def hide_neighbours(keys: Keys, share: float, rng: np.random.Generator) -> Keys:
    """Windows `[n]`, of which a `share` sees less, as a tree does that lacks them: a third of those without the next
    token, a third without the one before, a third neither."""
    drawn = rng.random(len(keys))
    some = keys.copy()
    for number, shorter in enumerate((without_next, without_prev, unigram)):
        chosen = (drawn >= number * share / 3) & (drawn < (number + 1) * share / 3)
        some[chosen] = shorter(keys[chosen])
    return some


def full_states(model: HBert, batch: WindowBatch) -> list[Tensor]:
    """What an ordinary model has after its k lower layers and after each upper one: [B, T, H] each."""
    return list(upper_states(model, model.full_lower(batch.ids, batch.mask), batch.mask))


def upper_states(model: HBert, hidden: Tensor, mask: Tensor, adapters: AdapterMaths | None = None) -> Iterator[Tensor]:
    """What the upper layers are given and what each of them gives: [B, T, H] each."""
    yield hidden
    for layer in model.transformer_layers[model.spec.k :]:
        hidden = layer(hidden, mask, adapters or NoAdapters())
        yield hidden


def relative_error(ours: Tensor, reference: Tensor) -> Tensor:
    """|ours - reference|^2 / |reference|^2 over all values, float32."""
    return (ours.float() - reference.float()).square().sum() / reference.float().square().sum()


def _filled(count: int, step: int) -> int:
    return -(-count // step) * step
