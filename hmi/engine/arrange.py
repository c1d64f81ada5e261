"""The order of a batch's rows, and the plans made from it."""

from __future__ import annotations

import torch
from torch import Tensor

from hmi.adapters.maths import HeadPlan, ServingAdapters, TokenHeadPlan, bind_adapters, order_key
from hmi.adapters.maths import plan_adapters as plan_batch_adapters
from hmi.engine.work import Batch
from hmi.items import Task

__all__ = ["adapters_of", "order_rows", "plan_adapters"]


def order_rows(batch: Batch) -> None:
    """Bring rows of one adapter, and adapters of one layout, together. Before anything is laid out by row."""
    order = sorted(range(len(batch.works)), key=lambda row: order_key(batch.residents[row]))
    batch.works = [batch.works[row] for row in order]
    batch.residents = [batch.residents[row] for row in order]


def plan_adapters(batch: Batch, device: torch.device) -> None:
    """Plan how the batch's adapters and heads are applied. Its adapters are resident and pinned."""
    spec = batch.base.spec
    tasks = {work.item.task for work in batch.works}
    batch.heads = batch.taggers = None
    if Task.CLASSIFY in tasks:
        pairs = zip(batch.works, batch.residents, strict=True)
        asking = [resident if work.item.task is Task.CLASSIFY else None for work, resident in pairs]
        heads, taggers = HeadPlan(asking, spec.hidden_size, device), TokenHeadPlan(asking, spec.hidden_size, device)
        batch.heads = heads if heads.counts.any() else None
        batch.taggers = taggers if taggers.rows else None
    batch.first_only = tasks == {Task.CLASSIFY} and batch.heads is not None and batch.heads.first_only
    batch.plan = plan_batch_adapters(
        batch.residents,
        device,
        unfused=batch.base.model.unfused_layers(first_only=batch.first_only),
        row_bytes=spec.hidden_size * batch.base.model.dtype.itemsize,
    )


def adapters_of(batch: Batch, arena: Tensor) -> ServingAdapters | None:
    """The planned adapters on the device tier's arena; None where no row has any."""
    return bind_adapters(batch.plan, arena) if batch.plan else None
