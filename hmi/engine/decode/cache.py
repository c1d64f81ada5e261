"""How many pages of keys and values a budget holds, and where in them the tokens of a step lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from hmi.engine.decode.scheduler import SequenceState
from hmi.models.layers import PAGE_TOKENS, PagedKvCache, PageGroup, page_bytes
from hmi.spec import HPLMSpec

T = TypeVar("T")

_MOST_BYTES = 2**28  # of keys and values that are gathered at once, of one layer
# The price of a separate part of a step, in bytes that could be gathered meanwhile: some calls of small operations for
# each layer, which matter on a GPU and hardly on a CPU.
_PART_BYTES = {"cpu": 2**20, "cuda": 2**26}


def pool_size(spec: HPLMSpec, dtype: torch.dtype, budget_bytes: int) -> int:
    """Pages that a budget holds; one at least."""
    return max(1, budget_bytes // page_bytes(spec, dtype))


def all_places(members: Sequence[SequenceState[T]]) -> NDArray[np.int64]:
    """Where each token lies, member after member, int64 `[tokens of all]`."""
    starts = [np.asarray(member.pages, np.int64)[:, None] * PAGE_TOKENS for member in members]
    within = np.arange(PAGE_TOKENS)
    return np.concatenate(
        [(first + within).reshape(-1)[: member.tokens] for first, member in zip(starts, members, strict=True)]
    )


def newest_places(members: Sequence[SequenceState[T]]) -> NDArray[np.int64]:
    """Where each member's newest token lies, int64 `[B]`."""
    return np.array([each.pages[-1] * PAGE_TOKENS + (each.tokens - 1) % PAGE_TOKENS for each in members], np.int64)


def page_parts(members: Sequence[SequenceState[T]], pages: PagedKvCache) -> list[PageGroup]:
    """What a step reads of the members' keys and values."""
    rows = partition([len(member.pages) for member in members], pages.layer_page_bytes, pages.device.type)
    if len(rows) == 1:
        return [_part(members, None, pages)]
    return [_part([members[row] for row in some.tolist()], torch.from_numpy(some), pages) for some in rows]


def partition(lengths: Sequence[int], page_bytes: int, device: str) -> list[NDArray[np.int64]]:
    """Partition sequences into those whose keys and values are gathered together; rows of each part.

    What is gathered is as long as the longest of a part, so a long sequence beside many short ones is a part of its
    own. No part is larger than `_MOST_BYTES` unless it is a single sequence. `lengths` are in pages, and
    `page_bytes` of one layer.
    """
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    size = np.asarray(lengths, np.int64)[order] * page_bytes
    price = _PART_BYTES.get(device, _PART_BYTES["cpu"])
    parts, first = [], 0
    for place in range(1, len(order)):
        saved = (size[first] - size[place]) * (len(order) - place)
        if saved > price or size[first] * (place + 1 - first) > _MOST_BYTES:
            parts.append(order[first:place])
            first = place
    return [*parts, order[first:]]


def _part(members: Sequence[SequenceState[T]], rows: torch.Tensor | None, pages: PagedKvCache) -> PageGroup:
    table = np.zeros((len(members), max(len(member.pages) for member in members)), np.int64)
    for row, member in enumerate(members):
        table[row, : len(member.pages)] = member.pages  # and the empty page 0 where it has fewer
    tokens = torch.tensor([member.tokens for member in members], device=pages.device)
    rows = None if rows is None else rows.to(pages.device)
    return PageGroup.of(rows, torch.from_numpy(table).to(pages.device), tokens, pages.dtype)
