"""A paged KV cache for the upper layers (Kwon et al., 2023).

The lower layers need none: their output for a new token is looked up by its last three tokens. The pages of a sequence
may lie anywhere in the pool, so a sequence that ends leaves no unusable gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hmi.spec import HPLMSpec

PAGE_TOKENS = 16


def page_bytes(spec: HPLMSpec, dtype: torch.dtype) -> int:
    """Return the size of one page: keys and values of all upper layers."""
    return 2 * (spec.layers - spec.k) * spec.key_heads * PAGE_TOKENS * spec.head_width * dtype.itemsize


@dataclass(frozen=True, slots=True)
class PageGroup:
    """Sequences whose keys and values are gathered together, padded to the longest of them."""

    rows: Tensor | None  # int64 [b], rows of the batch; None for all rows in their order
    table: Tensor  # int64 [b, P], each sequence's pages in the order of its tokens, padded with any page
    # [b, P * PAGE_TOKENS], added to attention's scores: 0 for the sequence's tokens, minus infinity for padding
    weights: Tensor

    @classmethod
    def of(cls, rows: Tensor | None, table: Tensor, tokens: Tensor, dtype: torch.dtype) -> PageGroup:
        """Make a group of sequences with `tokens` int64 [b] tokens each."""
        places = torch.arange(table.shape[1] * PAGE_TOKENS, device=table.device)
        is_padding = places >= tokens[:, None]
        weights = torch.zeros(is_padding.shape, dtype=dtype, device=table.device)
        return cls(rows, table, weights.masked_fill_(is_padding, -torch.inf))


class PagedKvCache:
    """The tensors of a pool of `pages` pages. The caller keeps track of which sequence owns which page."""

    def __init__(self, spec: HPLMSpec, pages: int, device: torch.device | str, dtype: torch.dtype) -> None:
        # Heads before pages: then attention reads what is gathered for a batch without another copy.
        shape = (spec.layers - spec.k, 2, spec.key_heads, pages, PAGE_TOKENS * spec.head_width)
        # Zeros, because attention multiplies unwritten values by zero, and zero times NaN is NaN.
        self._pool = torch.zeros(shape, device=device, dtype=dtype)
        self.device, self.dtype = self._pool.device, dtype
        # The size of one page in one layer, keys and values.
        self.layer_page_bytes = page_bytes(spec, dtype) // max(1, spec.layers - spec.k)
        self._first = spec.k
        self._width = spec.head_width

    def clear(self, pages: Sequence[int]) -> None:
        """Zero the pages. A NaN that was written would spoil the next sequence that owns the page."""
        index = torch.tensor(pages, device=self._pool.device)
        self._pool.index_fill_(3, index, 0)

    def write(self, layer: int, keys: Tensor, values: Tensor, places: Tensor) -> None:
        """Store one layer's keys and values [n, heads, size] at `places` int64 [n], page * PAGE_TOKENS + index."""
        for kept, given in zip(self._pool[layer - self._first], (keys, values), strict=True):
            kept.view(kept.shape[0], -1, self._width).index_copy_(1, places, given.transpose(0, 1))

    def attend(self, layer: int, queries: Tensor, groups: Sequence[PageGroup]) -> Tensor:
        """Attend from each sequence's newest token to all its tokens: queries [B, 1, heads, size] -> the same shape.

        `heads` is a multiple of the pool's heads. Each of the B sequences is in one group.
        """
        if len(groups) == 1 and groups[0].rows is None:
            return self._attend(layer, queries, groups[0])
        found = torch.empty_like(queries)
        for group in groups:
            found[group.rows] = self._attend(layer, queries[group.rows], group)
        return found

    def _attend(self, layer: int, queries: Tensor, group: PageGroup) -> Tensor:
        count, pages = group.table.shape
        flat = group.table.reshape(-1)
        keys, values = (  # [b, heads, P * PAGE_TOKENS, size]
            kept.index_select(1, flat).view(-1, count, pages * PAGE_TOKENS, self._width).transpose(0, 1)
            for kept in self._pool[layer - self._first]
        )
        # Queries that share keys are placed side by side like tokens, so keys need no repetition.
        grouped = queries.view(count, keys.shape[1], -1, queries.shape[3])  # [b, pool heads, shared, size]
        context = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=group.weights[:, None, None])
        return context.reshape(queries.shape)
