"""The keys and values of upper layers, kept in pages of a few tokens that sequences take and give back.

Lower layers need none: what they give for a new token is looked up by its last three tokens. A sequence's pages lie
anywhere in the pool, so one that ends leaves no hole that is of no use to others (Kwon et al., 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hmi.spec import HPLMSpec

__all__ = ["PAGE_TOKENS", "KeyValuePages", "page_bytes"]

PAGE_TOKENS = 16


def page_bytes(spec: HPLMSpec, dtype: torch.dtype) -> int:
    """Of one page in all upper layers, keys and values."""
    return 2 * (spec.layers - spec.k) * spec.key_heads * PAGE_TOKENS * spec.head_width * dtype.itemsize


class KeyValuePages:
    """The pool's tensors. Who owns which page is the caller's to know.

    Args:
        pages: In the pool.
    """

    def __init__(self, spec: HPLMSpec, pages: int, device: torch.device | str, dtype: torch.dtype) -> None:
        shape = (spec.layers - spec.k, 2, spec.key_heads, pages, PAGE_TOKENS * spec.head_width)
        # Heads first: what is gathered for a batch is then, without another copy, what attention reads.
        # Zeros: what was not written is weighed with nothing, and nothing times what is no number is none.
        self._pool = torch.zeros(shape, device=device, dtype=dtype)
        self._first = spec.k
        self._width = spec.head_width

    def clear(self, pages: Sequence[int]) -> None:
        """Forget what the pages held: a number that is none, once written, would spoil whoever reads beside it."""
        index = torch.tensor(pages, device=self._pool.device)
        self._pool.index_fill_(3, index, 0)

    def write(self, layer: int, keys: Tensor, values: Tensor, places: Tensor) -> None:
        """Keep one layer's keys and values `[n, heads, size]` of n tokens.

        Args:
            places: int64 `[n]`, page * PAGE_TOKENS + place in the page.
        """
        for kept, given in zip(self._pool[layer - self._first], (keys, values), strict=True):
            kept.view(kept.shape[0], -1, self._width).index_copy_(1, places, given.transpose(0, 1))

    def read(self, layer: int, table: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `[B, heads, P * PAGE_TOKENS, size]` of one layer.

        Args:
            table: int64 `[B, P]`, each sequence's pages in the order of its tokens; any page where it has fewer.
        """
        count, pages = table.shape
        flat = table.reshape(-1)
        keys, values = (
            kept.index_select(1, flat).view(-1, count, pages * PAGE_TOKENS, self._width).transpose(0, 1)
            for kept in self._pool[layer - self._first]
        )
        return keys, values
