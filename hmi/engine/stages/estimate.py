"""Windows that no table holds, estimated from the rows of their tokens instead of computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hmi.engine.stages.dequantise import decode_rows
from hmi.knowledge import Keys, token_keys, unpack
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import NO_ROW, StoredRows
from hmi.models.layers import ServedEstimator
from hmi.spec import HPLMSpec


@dataclass(frozen=True, slots=True, eq=False)
class EstimateGroup:
    """Windows that one function's estimator estimates. Tensors are on the device."""

    estimator: ServedEstimator
    codes: torch.Tensor  # int8 or float16 [m, H], unigram rows as stored, and one of zeros for absent neighbours
    scales: torch.Tensor | None  # float32 [m] for int8
    index: torch.Tensor  # int64 [n, 3], which of `codes` the tokens of each window have
    places: torch.Tensor  # int64 [p], flat positions in B * T that get a window's row
    sources: torch.Tensor  # int64 [p], which of the n windows each of them gets

    def part(self, places: torch.Tensor, sources: torch.Tensor) -> EstimateGroup:
        """The group for some of its positions, at new `places` `[p]` with their `sources` `[p]`."""
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
    """Unigram rows of the tokens of some windows, as a domain's lookups find them."""

    rows: StoredRows  # of each token once
    index: NDArray[np.int64]  # [n, 3], which of `rows` the tokens of each window have; NO_ROW for an absent neighbour
    whole: NDArray[np.bool_]  # [n], whether all were found

    @classmethod
    def of(cls, tree: KnowledgeTree, domain: str, windows: Keys, spec: HPLMSpec) -> TokensOfWindows:
        """Raises `NotFound` where the tree has no such domain."""
        ids = unpack(windows)  # [n, 3]
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
        sources: NDArray[np.int64],
        places: NDArray[np.int64],
        send: Callable[[NDArray[Any]], torch.Tensor],
    ) -> tuple[EstimateGroup, NDArray[np.bool_]]:
        """The group of the windows `sources` `[p]` at `places` `[p]`, and which of them it estimates, bool `[p]`."""
        chosen = self.whole[sources]
        scales = self.rows.scales
        group = EstimateGroup(
            estimator,
            send(self.rows.codes[: self.rows.count]),
            None if scales is None else send(scales[: self.rows.count]),
            send(self.index[self.whole]),
            send(places[chosen]),
            send((np.cumsum(self.whole) - 1)[sources[chosen]]),
        )
        return group, chosen
