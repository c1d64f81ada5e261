"""The adapters of one batch as a serving forward uses them, and the choice between the two ways to compute them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from hmi.adapters.maths.gathered import GatheredAdapters
from hmi.adapters.maths.kernel_adapters import KernelAdapters, KernelPlan
from hmi.adapters.maths.kernels import kernels_run_on
from hmi.adapters.maths.plan import NO_LAYERS, GatheredPlan
from hmi.adapters.tiers import Resident
from hmi.spec import Placement, Site

AdapterPlan = GatheredPlan | KernelPlan


class ServingAdapters(Protocol):
    """The adapters of a batch, each row's own, added in place and without gradients."""

    def has_lora(self, layer: int, site: Site) -> bool:
        """Return whether any row has a LoRA at a site that is computed alone (not q, k or v)."""

    def reads_hidden(self, layer: int, place: Placement) -> bool:
        """Return whether a bottleneck reads the dense layer's output before the residual is added."""

    def lora(self, layer: int, sites: tuple[Site, ...], x: Tensor, y: Tensor) -> None:
        """Add each row's LoRA to y [batch, tokens, sites, out], the outputs of linear layers that read the same
        x [batch, tokens, in]. `sites` is a group that the plan computes together."""

    def bottleneck(
        self, layer: int, place: Placement, total: Tensor, hidden: Tensor | None, norm: Callable[[Tensor], Tensor]
    ) -> None:
        """Add each row's bottleneck to `total`.

        Args:
            total: [batch, tokens, hidden], the sub-layer's output plus its residual.
            hidden: [batch, tokens, hidden], the sub-layer's output alone; needed where `reads_hidden`.
            norm: The sub-layer's own LayerNorm, for adapters that read norm(total).
        """


def plan_adapters(
    residents: Sequence[Resident | None], device: torch.device, *, unfused: range = NO_LAYERS, row_bytes: int
) -> AdapterPlan:
    """Plan a batch's adapters on the host. Arguments are those of `GatheredPlan`."""
    if kernels_run_on(device):
        return KernelPlan(residents, device, unfused=unfused)
    return GatheredPlan(residents, device, unfused=unfused, row_bytes=row_bytes)


def bind_adapters(plan: AdapterPlan, arena: Tensor) -> ServingAdapters | None:
    """Return the planned adapters on the device tier's arena; None where no row has any."""
    if isinstance(plan, KernelPlan):
        return KernelAdapters(arena, plan) if plan.launches else None
    return GatheredAdapters(arena, plan) if plan.groups else None
