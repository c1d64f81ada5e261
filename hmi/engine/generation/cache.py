"""How many pages of keys and values a budget holds, and where in them the tokens of a step lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from hmi.engine.generation.roster import Member
from hmi.models.pages import PAGE_TOKENS, page_bytes
from hmi.spec import HPLMSpec

__all__ = ["page_table", "places_of", "pool_size"]

T = TypeVar("T")


def pool_size(spec: HPLMSpec, dtype: torch.dtype, budget_bytes: int) -> int:
    """Pages that a budget holds; one at least."""
    return max(1, budget_bytes // page_bytes(spec, dtype))


def places_of(members: Sequence[Member[T]]) -> NDArray[np.int64]:
    """Where each token lies, member after member, int64 `[tokens of all]`."""
    return np.concatenate([_places(member.pages, member.tokens) for member in members])


def page_table(members: Sequence[Member[T]]) -> NDArray[np.int64]:
    """Each member's pages `[B, P]`; the pool's first where one has fewer."""
    table = np.zeros((len(members), max(len(member.pages) for member in members)), np.int64)
    for row, member in enumerate(members):
        table[row, : len(member.pages)] = member.pages
    return table


def _places(pages: Sequence[int], tokens: int) -> NDArray[np.int64]:
    starts = np.asarray(pages, np.int64)[:, None] * PAGE_TOKENS
    flat: NDArray[np.int64] = (starts + np.arange(PAGE_TOKENS)).reshape(-1)[:tokens]
    return flat
