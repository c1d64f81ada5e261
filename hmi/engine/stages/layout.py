"""The order of a batch's rows, and how their adapters and heads are applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hmi.adapters.maths import AdapterPlan, HeadPlan, ServingAdapters, TokenHeadPlan, bind_adapters, plan_adapters
from hmi.adapters.tiers import Resident
from hmi.engine.memory import LoadedModel
from hmi.engine.tasks import SequenceTask
from hmi.items import Task


@dataclass(frozen=True, slots=True, eq=False)
class BatchLayout:
    residents: tuple[Resident | None, ...]  # by row, the adapter's place on the device; None for the base model alone
    adapters: AdapterPlan
    heads: HeadPlan | None  # of whole sequences, where a row has one
    token_heads: TokenHeadPlan | None  # of tokens, where a row has one
    first_only: bool  # only the first token's last state is used

    def adapters_on(self, arena: Tensor) -> ServingAdapters | None:
        """The adapters on the device tier's arena; None where no row has any."""
        return bind_adapters(self.adapters, arena)


def plan_layout(
    base: LoadedModel, tasks: Sequence[SequenceTask], residents: Sequence[Resident | None], device: torch.device
) -> BatchLayout:
    """Plan how adapters and heads are applied to the tasks of one batch, in this order.

    `residents` are of each task and pinned; those of one adapter, and adapters of one layout, lie together.
    """
    spec = base.spec
    kinds = {task.item.task for task in tasks}
    heads = token_heads = None
    if Task.CLASSIFY in kinds:
        pairs = zip(tasks, residents, strict=True)
        classifying = [resident if task.item.task is Task.CLASSIFY else None for task, resident in pairs]
        plan = HeadPlan(classifying, spec.hidden_size, device)
        heads = plan if plan.counts.any() else None
        token_plan = TokenHeadPlan(classifying, spec.hidden_size, device)
        token_heads = token_plan if token_plan.rows else None
    first_only = kinds == {Task.CLASSIFY} and heads is not None and heads.first_only
    adapters = plan_adapters(
        residents,
        device,
        unfused=base.model.unfused_layers(first_only=first_only),
        row_bytes=spec.hidden_size * base.model.dtype.itemsize,
    )
    return BatchLayout(tuple(residents), adapters, heads, token_heads, first_only)
