"""Windows that no table holds, and that are estimated from the rows of their tokens instead of computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hmi.engine.dequantise import decode_rows
from hmi.knowledge import Keys, token_keys, unpack
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import NO_ROW, StoredRows
from hmi.models.layers import ServedEstimator
from hmi.spec import HPLMSpec

__all__ = ["EstimateGroup", "TokensOfWindows"]


@dataclass(frozen=True, slots=True, eq=False)
class EstimateGroup:
    """Windows to estimate by one function's estimator. Tensors are on the device.

    Attributes:
        codes, scales: Rows of tokens alone as stored, one of zeros for absent neighbours: int8 or float16 `[m, H]`,
            for int8 float32 `[m]`.
        index: int64 `[n, 3]`: which of them the tokens of each window have.
        places: int64 `[p]`: flat positions in `B * T` that get a window's row.
        sources: int64 `[p]`: which window's.
    """

    estimator: ServedEstimator
    codes: torch.Tensor
    scales: torch.Tensor | None
    index: torch.Tensor
    places: torch.Tensor
    sources: torch.Tensor

    def part(self, places: torch.Tensor, sources: torch.Tensor) -> EstimateGroup:
        """What is needed for some of the positions, which now are these `[p]`, and get these windows' rows `[p]`."""
        used, sources = torch.unique(sources, return_inverse=True)
        tokens, index = torch.unique(self.index[used], return_inverse=True)
        scales = None if self.scales is None else self.scales[tokens]
        return EstimateGroup(self.estimator, self.codes[tokens], scales, index, places, sources)

    def rows(self, dtype: torch.dtype) -> torch.Tensor:
        """`[p, H]`."""
        every = torch.arange(len(self.codes), device=self.codes.device)
        tokens = decode_rows(self.codes, self.scales, every, dtype)
        return self.estimator(tokens, self.index).index_select(0, self.sources)


@dataclass(frozen=True, slots=True)
class TokensOfWindows:
    """The rows of tokens alone that make some windows up, as a domain's lookups find them.

    Attributes:
        rows: Of each token once.
        index: int64 `[n, 3]`, where in `rows` those of each window are; that of zeros for an absent neighbour.
        whole: bool `[n]`, whether all were found.
    """

    rows: StoredRows
    index: NDArray[np.int64]
    whole: NDArray[np.bool_]

    @classmethod
    def of(cls, tree: KnowledgeTree, domain: str, windows: Keys, spec: HPLMSpec) -> TokensOfWindows:
        """Raises `NotFound` where the tree has no such domain."""
        ids = unpack(windows)
        tokens, place = np.unique(ids, return_inverse=True)
        there = tokens >= 0
        rows = StoredRows(spec.row_dtype, spec.hidden_size, len(tokens))
        positions = np.full(len(tokens), NO_ROW, np.int64)
        positions[there] = tree.gather(domain, token_keys(tokens[there]), rows).positions
        index = positions[place.reshape(ids.shape)]
        return cls(rows, index, ((index != NO_ROW) | (ids < 0)).all(1))

    def group(
        self,
        estimator: ServedEstimator,
        wanted: NDArray[np.int64],
        places: NDArray[np.int64],
        send: Callable[[NDArray[Any]], torch.Tensor],
    ) -> tuple[EstimateGroup, NDArray[np.bool_]]:
        """What is estimated of the windows wanted `[p]` at these places `[p]`; and for which of them, bool `[p]`."""
        chosen = self.whole[wanted]
        scales = self.rows.scales
        group = EstimateGroup(
            estimator,
            send(self.rows.codes[: self.rows.count]),
            None if scales is None else send(scales[: self.rows.count]),
            send(self.index[self.whole]),
            send(places[chosen]),
            send((np.cumsum(self.whole) - 1)[wanted[chosen]]),
        )
        return group, chosen
