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
from hmi.adapters.tiers import BottleneckSpan, LoraSpan, Resident
from hmi.spec import Placement, Site


@dataclass(frozen=True, slots=True, eq=False)
class _Launch:
    """Arguments of one kernel launch; see `hmi.adapters.maths.kernels`."""

    ranks: Tensor  # int64 [sites, batch]
    offsets: Tensor  # int64 [sites, matrices, batch]
    max_rank: int
    activation: Activation | None  # None for LoRAs
    before_norm: bool  # Of bottlenecks


class KernelPlan:
    """The kernels' arguments, made on the host and sent in one copy. Arguments as for `GatheredPlan`."""

    def __init__(
        self, residents: Sequence[Resident | None], device: torch.device | str, *, unfused: range = NO_LAYERS
    ) -> None:
        self.launches: dict[LayerPlace, list[_Launch]] = {}
        self.index = torch.empty(0, dtype=torch.int64)  # [any], the arena rows of all residents one after another
        starts = np.cumsum([0, *(0 if each is None else each.body.rows for each in residents)])
        drafts: list[tuple[LayerPlace, NDArray[np.int64], NDArray[np.int64], Activation | None, bool]] = []
        for place in adapted_places(residents, unfused):
            layer, what = place
            if isinstance(what, tuple):
                pairs = [[each.body.lora.get((layer, site)) if each else None for each in residents] for site in what]
                drafts.append((place, *_arguments(pairs, starts, ("a", "b")), None, True))
                continue
            parts = [each.body.bottleneck.get((layer, what)) if each else None for each in residents]
            kinds = [(each.body.activation, each.body.before_norm) if each else None for each in residents]
            for kind in sorted({kind for kind, part in zip(kinds, parts, strict=True) if kind and part}):
                own = [part if each == kind else None for each, part in zip(kinds, parts, strict=True)]
                drafts.append((place, *_arguments([own], starts, ("down", "up", "down_bias", "up_bias")), *kind))
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
    """`ServingAdapters` by kernels that read the arena in place."""

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
            self._apply(y.flatten(2), x, launch)

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
            self._apply(total, x, launch)

    def _apply(self, y: Tensor, x: Tensor, launch: _Launch) -> None:
        apply_segmented(
            y, x, self._arena, launch.ranks, launch.offsets, self._index, launch.max_rank, launch.activation
        )


def _arguments(
    spans: Sequence[Sequence[LoraSpan | BottleneckSpan | None]], starts: NDArray[np.int64], matrices: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ranks [sites, batch] and offsets [sites, matrices, batch] of one launch.

    `spans` are those of each site and row, `matrices` their fields; in the index each row's adapter begins at its entry
    of `starts` [batch + 1].
    """
    batch = len(starts) - 1
    ranks = np.zeros((len(spans), batch), np.int64)
    offsets = np.zeros((len(spans), len(matrices), batch), np.int64)
    for site, own in enumerate(spans):
        for row, span in enumerate(own):
            if span is not None:
                ranks[site, row] = span.rank
                offsets[site, :, row] = [starts[row] + getattr(span, matrix).start for matrix in matrices]
    return ranks, offsets
