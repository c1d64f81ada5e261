"""Many tenants' adapters in one batch on CUDA: one launch at each place, for all kinds and ranks of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters import Activation
from hmi.adapters.maths.kernels import apply_segmented
from hmi.adapters.maths.plan import NO_LAYERS, LayerPlace, SiteGroup, adapted_places
from hmi.adapters.tiers import Resident
from hmi.spec import Placement, Site


@dataclass(frozen=True, slots=True, eq=False)
class _Launch:
    """Arguments of one kernel launch; see `hmi.adapters.maths.kernels`."""

    # int64 [sites, batch]
    ranks: Tensor
    # int64 [sites, matrices, batch]
    offsets: Tensor
    max_rank: int
    activation: Activation = Activation.IDENTITY
    before_norm: bool = True


class KernelPlan:
    """The kernels' arguments, made on the host and sent in one copy. Arguments as for `GatheredPlan`.

    Attributes:
        launches: By place.
        index: int64 [any], the arena rows of all residents one after another.
    """

    def __init__(
        self,
        residents: Sequence[Resident | None],
        device: torch.device | str,
        *,
        unfused: range = NO_LAYERS,
    ) -> None:
        self.launches: dict[LayerPlace, list[_Launch]] = {}
        self.index = torch.empty(0, dtype=torch.int64)
        starts = np.cumsum([0, *(0 if each is None else each.body.rows for each in residents)])
        drafts: list[tuple[LayerPlace, NDArray[np.int64], NDArray[np.int64], Activation, bool]] = []
        for place in adapted_places(residents, unfused):
            layer, what = place
            if isinstance(what, tuple):
                drafts.append((place, *_loras(residents, starts, layer, what), Activation.IDENTITY, True))
                continue
            kinds = {
                (each.body.activation, each.body.before_norm)
                for each in residents
                if each is not None and (layer, what) in each.body.bottleneck
            }
            drafts += [(place, *_bottlenecks(residents, starts, layer, what, kind), *kind) for kind in sorted(kinds)]
        if not drafts:
            return
        index = np.concatenate([each.body_rows for each in residents if each is not None])
        arrays = [index, *(array for _, ranks, offsets, *_ in drafts for array in (ranks, offsets))]
        flat = torch.from_numpy(np.concatenate([array.reshape(-1) for array in arrays])).to(device, non_blocking=True)
        sent = iter(torch.split(flat, [array.size for array in arrays]))
        self.index = next(sent)
        for place, ranks, offsets, activation, before_norm in drafts:
            own_ranks, own_offsets = next(sent).view(ranks.shape), next(sent).view(offsets.shape)
            launch = _Launch(own_ranks, own_offsets, int(ranks.max()), activation, before_norm)
            self.launches.setdefault(place, []).append(launch)


class KernelAdapters:
    """`hmi.adapters.maths.serving.ServingAdapters` by kernels that read the arena in place."""

    def __init__(self, arena: Tensor, plan: KernelPlan) -> None:
        self._arena = arena
        self._index = plan.index
        self._launches = plan.launches

    def has_lora(self, layer: int, site: Site) -> bool:
        return (layer, (site,)) in self._launches

    def reads_hidden(self, layer: int, place: Placement) -> bool:
        return any(not launch.before_norm for launch in self._launches.get((layer, place), ()))

    def lora(self, layer: int, sites: SiteGroup, x: Tensor, y: Tensor) -> None:
        for launch in self._launches.get((layer, sites), ()):
            apply_segmented(y.flatten(2), x, self._arena, launch.ranks, launch.offsets, self._index, launch.max_rank)

    def bottleneck(
        self, layer: int, place: Placement, total: Tensor, hidden: Tensor | None, norm: Callable[[Tensor], Tensor]
    ) -> None:
        launches = self._launches.get((layer, place), ())
        # All launches read the total before the first one: a row has one adapter, and only its launch writes it.
        normed = norm(total) if any(launch.before_norm for launch in launches) else None
        for launch in launches:
            x = normed if launch.before_norm else hidden
            if x is None:
                raise ValueError("an adapter reads the output before the residual, and it was not given")
            apply_segmented(
                total, x, self._arena, launch.ranks, launch.offsets, self._index, launch.max_rank, launch.activation
            )


def _loras(
    residents: Sequence[Resident | None], starts: NDArray[np.int64], layer: int, sites: SiteGroup
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ranks [sites, batch] and offsets [sites, 2, batch] of the LoRAs at one place."""
    ranks = np.zeros((len(sites), len(residents)), np.int64)
    offsets = np.zeros((len(sites), 2, len(residents)), np.int64)
    for row, resident in enumerate(residents):
        for number, site in enumerate(sites if resident is not None else ()):
            span = resident.body.lora.get((layer, site)) if resident is not None else None
            if span is not None:
                ranks[number, row] = span.rank
                offsets[number, :, row] = starts[row] + span.a.start, starts[row] + span.b.start
    return ranks, offsets


def _bottlenecks(
    residents: Sequence[Resident | None],
    starts: NDArray[np.int64],
    layer: int,
    place: Placement,
    kind: tuple[Activation, bool],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ranks [1, batch] and offsets [1, 4, batch] of the bottlenecks of one kind at one place."""
    ranks = np.zeros((1, len(residents)), np.int64)
    offsets = np.zeros((1, 4, len(residents)), np.int64)
    for row, resident in enumerate(residents):
        span = resident.body.bottleneck.get((layer, place)) if resident is not None else None
        if resident is None or span is None or (resident.body.activation, resident.body.before_norm) != kind:
            continue
        ranks[0, row] = span.rank
        spans = (span.down, span.up, span.down_bias, span.up_bias)
        offsets[0, :, row] = [starts[row] + each.start for each in spans]
    return ranks, offsets
