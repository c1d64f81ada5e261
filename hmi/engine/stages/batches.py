"""A batch on its way: planned by the scheduler, staged on the device, computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.engine.memory import LoadedModel
from hmi.engine.stages.layout import BatchLayout, plan_layout
from hmi.engine.stages.window_rows import WindowRows
from hmi.engine.tasks import SequenceTask


@dataclass(frozen=True, slots=True, eq=False)
class PlannedBatch:
    """Sequences that the scheduler chose to run together."""

    number: int  # counts an engine's batches from 1; names the batch in traces
    base: LoadedModel
    tasks: tuple[SequenceTask, ...]  # one for each row

    @property
    def tokens(self) -> int:
        """Real tokens of all rows."""
        return sum(len(task.ids) for task in self.tasks)


@dataclass(frozen=True, slots=True, eq=False)
class StagedBatch(PlannedBatch):
    """All that the device needs. Tensors are on the device."""

    ids: Tensor  # int64 [B, T], padded
    mask: Tensor  # bool [B, T], True for a real token
    full: bool  # no row is padded
    rows: WindowRows | None  # None at k = 0
    layout: BatchLayout
    pins: tuple[str, ...]  # keys of adapters that stay on the device until the batch is released
    ready: torch.cuda.Event | None  # on CUDA, when all of the above has arrived


@dataclass(frozen=True, slots=True, eq=False)
class ComputedBatch:
    """Results, in host memory but for `rows`. An array has no entries where no row of the batch asks for it."""

    staged: StagedBatch
    rows: Tensor | None  # float32 [N, H], of `staged.rows.windows`
    logits: NDArray[np.float32]  # [B, most labels]
    pooled: NDArray[np.float32]  # [B, H], L2-normalised
    tags: NDArray[np.int64]  # [rows of token_heads, T], each token's most likely label
    tag_scores: NDArray[np.float32]  # [rows of token_heads, T]


def padded_width(base: LoadedModel, tasks: Sequence[SequenceTask]) -> int:
    """Tokens of a row: an even number, because kernels are prepared anew for each width."""
    longest = max(len(task.ids) for task in tasks)
    return min(longest + longest % 2, base.spec.max_positions)


def split_batch(batch: StagedBatch, device: torch.device) -> list[StagedBatch]:
    """The two halves of a batch, each as wide as its longest row; none of a single row.

    They run while the whole batch keeps its adapters pinned.
    """
    count = len(batch.tasks)
    if count < 2:
        return []
    return [_part(batch, rows, device) for rows in ((0, count // 2), (count // 2, count))]


def _part(batch: StagedBatch, rows: tuple[int, int], device: torch.device) -> StagedBatch:
    tasks, residents = batch.tasks[slice(*rows)], batch.layout.residents[slice(*rows)]
    width = padded_width(batch.base, tasks)
    return replace(
        batch,
        tasks=tasks,
        ids=batch.ids[slice(*rows), :width],
        mask=batch.mask[slice(*rows), :width],
        full=all(len(task.ids) == width for task in tasks),
        rows=None if batch.rows is None else batch.rows.part(rows, batch.ids.shape[1], width),
        layout=plan_layout(batch.base, tasks, residents, device),
        pins=(),
    )
