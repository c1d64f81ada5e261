"""What the lower layers give for a batch's tokens: rows that were found, and windows to compute or estimate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters.maths import SharedLora
from hmi.engine.stages.estimate import EstimateGroup
from hmi.knowledge import Keys


@dataclass(frozen=True, slots=True, eq=False)
class WindowGroup:
    """Windows that one function computes."""

    function: str  # its digest
    scope: str  # of the models that asked for them
    delta: SharedLora | None  # added to the base's lower layers; None for the base as it is
    keys: Keys  # uint64 [n], ascending, each once


@dataclass(frozen=True, slots=True, eq=False)
class WindowRows:
    """Of a batch `[B, T]`, on the device."""

    codes: Tensor  # int8 or float16 [m, H], rows as stored
    scales: Tensor | None  # float32 [m] for int8
    positions: Tensor  # int64 [B * T], each token's row of `codes`; NO_ROW for padding and missing windows
    windows: Tensor  # int64 [N, 3], unique windows to compute, group after group
    groups: tuple[WindowGroup, ...]  # which function computes which of them; together N keys
    places: Tensor  # int64 [M], flat positions in B * T of missing windows
    sources: Tensor  # int64 [M], which of `windows` each of them is
    estimates: tuple[EstimateGroup, ...]  # windows that are estimated instead

    def part(self, rows: tuple[int, int], tokens: int, width: int) -> WindowRows:
        """What some of the batch's rows (first, stop) of `tokens` tokens need, once they are cut to `width`."""
        inside, places = _moved(self.places, rows, tokens, width)
        used, sources = torch.unique(self.sources[inside], return_inverse=True)
        estimates = []
        for group in self.estimates:
            chosen, moved = _moved(group.places, rows, tokens, width)
            if chosen.any():
                estimates.append(group.part(moved, group.sources[chosen]))
        return WindowRows(
            self.codes,
            self.scales,
            self.positions.view(-1, tokens)[slice(*rows), :width].reshape(-1),
            self.windows[used],
            _used_groups(self.groups, used.cpu().numpy()),
            places,
            sources,
            tuple(estimates),
        )


def _moved(places: Tensor, rows: tuple[int, int], tokens: int, width: int) -> tuple[Tensor, Tensor]:
    """Flat places among rows of `tokens` tokens, as seen from some of the rows (first, stop) cut to `width`.

    Returns which of them lie there, bool `[n]`, and where those are now.
    """
    first, stop = rows
    inside = (places >= first * tokens) & (places < stop * tokens)
    row, column = places[inside] // tokens - first, places[inside] % tokens
    return inside, row * width + column


def _used_groups(groups: tuple[WindowGroup, ...], used: NDArray[np.int64]) -> tuple[WindowGroup, ...]:
    """The groups with the windows that are used: ascending places in all groups' windows together."""
    kept, start = [], 0
    for group in groups:
        stop = start + len(group.keys)
        here = used[(used >= start) & (used < stop)] - start
        if len(here):
            kept.append(WindowGroup(group.function, group.scope, group.delta, group.keys[here]))
        start = stop
    return tuple(kept)
