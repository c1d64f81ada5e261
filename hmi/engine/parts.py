"""Cutting a batch that was fetched into parts, for where the device could not run it whole."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.engine.arrange import plan_adapters
from hmi.engine.work import Batch, WindowGroup

__all__ = ["cut"]


def cut(batch: Batch, rows: slice, device: torch.device) -> Batch:
    """Some rows of a fetched batch, as wide as their own longest.

    The whole batch keeps the adapters for its parts too.
    """
    part = Batch(batch.base, batch.works[rows], batch.number, batch.residents[rows])
    if batch.ids is None or batch.mask is None:
        raise ValueError("the batch was not fetched")
    width = part.width
    part.ids, part.mask = batch.ids[rows, :width], batch.mask[rows, :width]
    part.full = all(len(work.ids) == width for work in part.works)
    plan_adapters(part, device)
    if batch.positions is None or batch.windows is None or batch.places is None or batch.sources is None:
        return part
    part.codes, part.scales = batch.codes, batch.scales
    part.positions = batch.positions.view(batch.ids.shape)[rows, :width].reshape(-1)
    span, whole = rows.indices(len(batch.works))[:2], batch.ids.shape[1]
    inside, part.places = _moved(batch.places, span, whole, width)
    used, part.sources = torch.unique(batch.sources[inside], return_inverse=True)
    part.windows = batch.windows[used]
    part.groups = _used_groups(batch.groups, used.cpu().numpy())
    for group in batch.estimates:
        there, places = _moved(group.places, span, whole, width)
        if there.any():
            part.estimates.append(group.part(places, group.sources[there]))
    return part


def _moved(places: Tensor, rows: tuple[int, int], whole: int, width: int) -> tuple[Tensor, Tensor]:
    """Flat places among rows of `whole` tokens, seen from some of the rows (first, stop) cut to `width`.

    Returns which of them lie there, bool `[n]`, and where those are now.
    """
    first, stop = rows
    inside = (places >= first * whole) & (places < stop * whole)
    row, column = places[inside] // whole - first, places[inside] % whole
    return inside, row * width + column


def _used_groups(groups: list[WindowGroup], used: NDArray[np.int64]) -> list[WindowGroup]:
    """The groups with those of their windows that are used: ascending places in all groups' windows together."""
    kept, start = [], 0
    for group in groups:
        stop = start + len(group.keys)
        here = used[(used >= start) & (used < stop)] - start
        if len(here):
            kept.append(WindowGroup(group.function, group.delta, group.keys[here]))
        start = stop
    return kept
