"""An adapter as the tiers keep it: all its matrices as rows of the model's width, in the dtype they run in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hmi.adapters.adapter import Adapter
from hmi.adapters.tiers.layout import BodyLayout, HeadLayout, body_layout, head_layout, pack

__all__ = ["Labels", "PackedAdapter", "pack_adapter"]


@dataclass(frozen=True, slots=True)
class Labels:
    """What the numbers of a head mean."""

    names: tuple[str, ...]
    multi_label: bool


@dataclass(frozen=True, slots=True, eq=False)
class PackedAdapter:
    """Attributes:
    rows: [body.rows + head.rows, width], the body's first.
    """

    body: BodyLayout
    head: HeadLayout | None
    labels: Labels | None
    rows: Tensor

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes


def pack_adapter(adapter: Adapter, width: int, dtype: torch.dtype, *, pin: bool = False) -> PackedAdapter:
    """Pack once, when the adapter is read from disk; from there on it is only copied.

    Args:
        pin: Into page-locked memory, from which a GPU copies on its own.
    """
    head = adapter.head
    rows = torch.from_numpy(pack(adapter, width)).to(dtype)
    return PackedAdapter(
        body_layout(adapter, width),
        head_layout(head, width) if head is not None else None,
        Labels(head.labels, head.multi_label) if head is not None else None,
        rows.pin_memory() if pin else rows,
    )
