"""The keys and values of upper layers, kept in pages of a few tokens that sequences take and give back.

Lower layers need none: what they give for a new token is looked up by its last three tokens. A sequence's pages lie
anywhere in the pool, so one that ends leaves no hole that is of no use to others (Kwon et al., 2023).
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
    """Of one page in all upper layers, keys and values."""
    return 2 * (spec.layers - spec.k) * spec.key_heads * PAGE_TOKENS * spec.head_width * dtype.itemsize


@dataclass(frozen=True, slots=True)
class PageGroup:
    """Sequences whose keys and values are gathered together; shorter ones are padded to the longest of them.

    Attributes:
        rows: int64 `[b]`, which of the batch they are; None where they are all of it, in its order.
        table: int64 `[b, P]`, each one's pages in the order of its tokens; any page where it has fewer.
        weights: `[b, P * PAGE_TOKENS]`, 0 for a token of the sequence and minus infinity behind its end.
    """

    rows: Tensor | None
    table: Tensor
    weights: Tensor

    @classmethod
    def of(cls, rows: Tensor | None, table: Tensor, tokens: Tensor, dtype: torch.dtype) -> PageGroup:
        """tokens int64 `[b]`: that each sequence holds."""
        places = torch.arange(table.shape[1] * PAGE_TOKENS, device=table.device)
        behind = places >= tokens[:, None]
        weights = torch.zeros(behind.shape, dtype=dtype, device=table.device).masked_fill_(behind, -torch.inf)
        return cls(rows, table, weights)


class PagedKvCache:
    """The pool's tensors. Who owns which page is the caller's to know.

    Args:
        pages: In the pool.

    Attributes:
        layer_page_bytes: Of one page in one layer, keys and values.
    """

    def __init__(self, spec: HPLMSpec, pages: int, device: torch.device | str, dtype: torch.dtype) -> None:
        shape = (spec.layers - spec.k, 2, spec.key_heads, pages, PAGE_TOKENS * spec.head_width)
        # Heads first: what is gathered for a batch is then, without another copy, what attention reads.
        # Zeros: what was not written is weighed with nothing, and nothing times what is no number is none.
        self._pool = torch.zeros(shape, device=device, dtype=dtype)
        self.device, self.dtype = self._pool.device, dtype
        self.layer_page_bytes = page_bytes(spec, dtype) // max(1, spec.layers - spec.k)
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

    def attend(self, layer: int, queries: Tensor, parts: Sequence[PageGroup]) -> Tensor:
        """What each sequence's newest token finds in all that the sequence holds.

        Args:
            queries: `[B, 1, heads, size]`; a multiple of the pool's heads.
            parts: In which each of the B sequences is once.

        Returns:
            `[B, 1, heads, size]`.
        """
        if len(parts) == 1 and parts[0].rows is None:
            return self._attend(layer, queries, parts[0])
        found = torch.empty_like(queries)
        for part in parts:
            found[part.rows] = self._attend(layer, queries[part.rows], part)
        return found

    def _attend(self, layer: int, queries: Tensor, part: PageGroup) -> Tensor:
        keys, values = self._gather(layer, part.table)
        # Queries that share keys stand side by side, as if they were tokens: nothing is repeated for them.
        asked = queries.view(len(queries), keys.shape[1], -1, queries.shape[3])
        context = F.scaled_dot_product_attention(asked, keys, values, attn_mask=part.weights[:, None, None])
        return context.reshape(queries.shape)

    def _gather(self, layer: int, table: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `[b, heads, P * PAGE_TOKENS, size]` of one layer."""
        count, pages = table.shape
        flat = table.reshape(-1)
        keys, values = (
            kept.index_select(1, flat).view(-1, count, pages * PAGE_TOKENS, self._width).transpose(0, 1)
            for kept in self._pool[layer - self._first]
        )
        return keys, values
