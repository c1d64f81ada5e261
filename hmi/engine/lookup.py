"""What the lower layers give for a batch's tokens: rows that are held, and a list of windows to compute.

A window is looked for in the published tree along its domain's line, then among the rows that were computed for
other batches' misses. What neither holds is computed once for the batch, by the domain's own function; under the
policy `backoff` its row is estimated from those of its tokens, or a shorter n-gram's stands in for it instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from hmi.adapters.maths import SharedLora
from hmi.engine.deltas import Deltas
from hmi.engine.estimate import TokensOfWindows
from hmi.engine.hosted import LoadedModel
from hmi.engine.work import Batch, SequenceTask, WindowGroup
from hmi.knowledge import Function, Keys, unpack
from hmi.knowledge.counts import FrequencyCounter
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import NO_ROW, StoredRows
from hmi.models.layers import ServedEstimator
from hmi.spec import MissPolicy

__all__ = ["WindowLookup"]

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class _Asked:
    """The windows of a batch's real tokens, `n` of them, and what was found so far.

    Attributes:
        keys: uint64 `[n]`; starts: int64 `[B + 1]`, where each sequence's begin.
        rows: Found rows, each once for its domain; positions: int64 `[n]`, which of them each window has, `NO_ROW`
            where nothing was found.
        estimated: bool `[n]`, nothing was found, and nothing needs to be.
        flat: int64 `[n]`, where in B * T each lies.
    """

    keys: Keys
    starts: NDArray[np.int64]
    rows: StoredRows
    positions: NDArray[np.int64]
    estimated: NDArray[np.bool_]
    flat: NDArray[np.int64]

    def tokens_of(self, members: list[int]) -> NDArray[np.int64]:
        """Places of the members' tokens, in order."""
        if len(members) == len(self.starts) - 1:
            return np.arange(len(self.keys))
        return np.concatenate([np.arange(self.starts[m], self.starts[m + 1]) for m in members])


class WindowLookup:
    """Fills batches of base models with k > 0; called from one thread.

    Args:
        send: Brings an array to the device.
    """

    def __init__(
        self, frequencies: FrequencyCounter, deltas: Deltas, send: Callable[[NDArray[Any]], torch.Tensor]
    ) -> None:
        self._frequencies = frequencies
        self._deltas = deltas
        self._send_array = send

    def fill(self, batch: Batch, keys: Keys, lengths: NDArray[np.int64], real: NDArray[np.bool_]) -> None:
        """Set what `Batch` holds of rows and windows.

        Args:
            keys: The windows of all real tokens, sequence after sequence.
            lengths: Tokens of each sequence `[B]`.
            real: bool `[B, T]`, True for a real token.

        Raises what loading a domain's delta raises, where it is needed.
        """
        tree, spec = batch.base.tree, batch.base.spec
        starts = np.concatenate([[0], np.cumsum(lengths)])
        # A window may be found in the tree for some and in the miss_cache for others, never twice for one token.
        rows = StoredRows(spec.row_dtype, spec.hidden_size, len(keys))
        flat = np.flatnonzero(real.ravel())  # where in B * T each real token lies
        asked = _Asked(keys, starts, rows, np.full(len(keys), NO_ROW, np.int64), np.zeros(len(keys), bool), flat)
        for (domain, delta, policy), members in _group(batch.works, _where).items():
            function = Function(batch.base.digest, delta)
            self._look_up(batch, tree, function, domain, policy, asked, asked.tokens_of(members))
        self._collect_missing(batch, asked)
        spread = np.full(real.size, NO_ROW, np.int64)
        spread[flat] = asked.positions
        batch.positions = self._send_array(spread)
        batch.codes = self._send_array(rows.codes[: rows.count])
        batch.scales = None if rows.scales is None else self._send_array(rows.scales[: rows.count])

    def _look_up(
        self,
        batch: Batch,
        tree: KnowledgeTree,
        function: Function,
        domain: str,
        policy: MissPolicy,
        asked: _Asked,
        tokens: NDArray[np.int64],
    ) -> None:
        wanted = asked.keys[tokens]
        approximate = policy is MissPolicy.BACKOFF
        # Nothing was published yet, the domain is younger than the tree, or its delta is: all is missing, and worth
        # counting.
        if tree.number == 0 or tree.function_of(domain) != function.digest:
            none = np.zeros(len(wanted), bool)
            self._frequencies.count(function.base, domain, wanted, none, 0, approximate=approximate)
            return
        estimator = self._estimator(batch.base, function.delta) if approximate else None
        found = tree.gather(domain, wanted, asked.rows, backoff=approximate and estimator is None)
        asked.positions[tokens] = found.positions
        if estimator is not None:
            self._estimate(batch, tree, domain, estimator, asked, tokens[found.positions == NO_ROW])
        self._frequencies.count(
            function.base,
            domain,
            wanted,
            found.exact,
            tree.number,
            inherited=int(np.count_nonzero(found.inherited & found.exact)),
            approximate=approximate,
        )

    def _estimate(
        self,
        batch: Batch,
        tree: KnowledgeTree,
        domain: str,
        estimator: ServedEstimator,
        asked: _Asked,
        tokens: NDArray[np.int64],
    ) -> None:
        """What is missing at `tokens`, but where not even the rows of single tokens are held: that is computed."""
        if not len(tokens):
            return
        unique, inverse = np.unique(asked.keys[tokens], return_inverse=True)
        alone = TokensOfWindows.of(tree, domain, unique, batch.base.spec)
        group, chosen = alone.group(estimator, inverse.reshape(-1), asked.flat[tokens], self._send_array)
        asked.estimated[tokens[chosen]] = True
        batch.estimates.append(group)

    def _collect_missing(self, batch: Batch, asked: _Asked) -> None:
        """Rows of the miss_cache, and for what is missing still each different window once, by function."""
        places, sources, windows = [], [], []
        count = 0
        for delta, members in _group(batch.works, lambda work: work.item.model.delta).items():
            tokens = asked.tokens_of(members)
            tokens = tokens[(asked.positions[tokens] == NO_ROW) & ~asked.estimated[tokens]]
            if not len(tokens):
                continue
            function = Function(batch.base.digest, delta).digest
            unique, inverse = np.unique(asked.keys[tokens], return_inverse=True)
            kept = batch.base.miss_cache.gather(function, unique, asked.rows)
            asked.positions[tokens] = kept[inverse.reshape(-1)]
            missing = kept == NO_ROW
            if not missing.any():
                continue
            wanted = missing[inverse.reshape(-1)]
            batch.groups.append(WindowGroup(function, self._delta(batch.base, delta), unique[missing]))
            windows.append(unpack(unique[missing]))
            places.append(asked.flat[tokens[wanted]])
            sources.append((np.cumsum(missing) - 1)[inverse.reshape(-1)[wanted]] + count)
            count += int(np.count_nonzero(missing))
        none = np.empty(0, np.int64)
        batch.windows = self._send_array(np.concatenate([np.empty((0, 3), np.int64), *windows]))
        batch.places = self._send_array(np.concatenate([none, *places]))
        batch.sources = self._send_array(np.concatenate([none, *sources]))

    def _delta(self, base: LoadedModel, digest: str | None) -> SharedLora | None:
        return None if digest is None else self._deltas.get(base, digest).lora

    def _estimator(self, base: LoadedModel, delta: str | None) -> ServedEstimator | None:
        return base.model.estimator if delta is None else self._deltas.get(base, delta).estimator


def _where(work: SequenceTask) -> tuple[str, str | None, MissPolicy]:
    model = work.item.model
    return model.domain, model.delta, model.miss_policy


def _group(works: list[SequenceTask], key: Callable[[SequenceTask], K]) -> dict[K, list[int]]:
    """Places of the works by what `key` says of them, in the order of first appearance."""
    grouped: dict[K, list[int]] = defaultdict(list)
    for row, work in enumerate(works):
        grouped[key(work)].append(row)
    return grouped
