"""One LoRA for every row of a serving forward: how a domain delta changes the lower layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from hmi.adapters.adapter import Adapter
from hmi.adapters.maths.single import LoraTensors
from hmi.spec import Placement, Site

__all__ = ["SharedLora"]


class SharedLora:
    """`hmi.adapters.maths.single.ServingAdapters` of rows that all have the same LoRA."""

    def __init__(self, lora: Mapping[tuple[int, Site], LoraTensors]) -> None:
        self._lora = lora

    @classmethod
    def of(cls, adapter: Adapter, device: torch.device, dtype: torch.dtype) -> SharedLora:
        """The LoRA of an adapter, copied to `device` as `dtype`."""

        def tensor(array: object) -> Tensor:
            return torch.as_tensor(array).to(device=device, dtype=dtype, copy=True)

        return cls({key: LoraTensors(tensor(part.a), tensor(part.b)) for key, part in adapter.lora.items()})

    @property
    def nbytes(self) -> int:
        return sum(part.a.nbytes + part.b.nbytes for part in self._lora.values())

    def has_lora(self, layer: int, site: Site) -> bool:
        return (layer, site) in self._lora

    def reads_hidden(self, layer: int, place: Placement) -> bool:
        return False

    def lora(self, layer: int, sites: tuple[Site, ...], x: Tensor, y: Tensor) -> None:
        for place, site in enumerate(sites):
            part = self._lora.get((layer, site))
            if part is not None:
                y[:, :, place] += functional.linear(functional.linear(x, part.a), part.b)

    def bottleneck(
        self, layer: int, place: Placement, total: Tensor, hidden: Tensor | None, norm: Callable[[Tensor], Tensor]
    ) -> None:
        """Nothing: a domain delta has none."""
