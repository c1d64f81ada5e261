"""Finds the row of each of a batch's windows, or decides how it is computed.

A window is looked up in the published tree along its domain's ancestor chain, then in the miss cache. What neither
holds is computed once for the batch and scope, by the domain's own function. Under the miss policy `backoff` its row is
estimated from those of its tokens, or the row of a shorter n-gram is used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from hmi.engine.memory import Deltas, LoadedModel
from hmi.engine.stages.estimate import EstimateGroup, TokensOfWindows
from hmi.engine.stages.window_rows import WindowGroup, WindowRows
from hmi.engine.tasks import SequenceTask
from hmi.knowledge import Function, Keys, unpack
from hmi.knowledge.counts import FrequencyCounter
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import NO_ROW, StoredRows
from hmi.models.layers import ServedEstimator
from hmi.spec import MissPolicy

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class _Search:
    """The windows of a batch's `n` real tokens, and what was found so far."""

    base: LoadedModel
    tree: KnowledgeTree  # the one that was published when the batch was formed
    keys: Keys  # uint64 [n]
    starts: NDArray[np.int64]  # [B + 1], where each sequence's windows begin
    flat: NDArray[np.int64]  # [n], where in B * T each lies
    rows: StoredRows  # those that were found, each once for its domain
    positions: NDArray[np.int64]  # [n], which of `rows` each window has; NO_ROW where nothing was found
    estimated: NDArray[np.bool_]  # [n], nothing was found and the row is estimated
    estimates: list[EstimateGroup] = field(default_factory=list)

    def tokens_of(self, members: list[int]) -> NDArray[np.int64]:
        """Places of the tokens of some sequences, in order."""
        if len(members) == len(self.starts) - 1:
            return np.arange(len(self.keys))
        return np.concatenate([np.arange(self.starts[m], self.starts[m + 1]) for m in members])


class WindowLookup:
    """For base models with k > 0, on one thread. `send` copies an array to the device."""

    def __init__(
        self, frequencies: FrequencyCounter, deltas: Deltas, send: Callable[[NDArray[Any]], torch.Tensor]
    ) -> None:
        self._frequencies = frequencies
        self._deltas = deltas
        self._send = send

    def look_up(
        self,
        base: LoadedModel,
        tasks: Sequence[SequenceTask],
        keys: Keys,
        lengths: NDArray[np.int64],
        real: NDArray[np.bool_],
    ) -> WindowRows:
        """Look up the windows of all real tokens, sequence after sequence, and count them.

        Raises what loading a domain's delta raises, where it is needed.

        Args:
            lengths: Tokens of each sequence `[B]`.
            real: bool `[B, T]`, True for a real token.
        """
        count = len(keys)
        search = _Search(
            base,
            base.tree,
            keys,
            starts=np.concatenate([[0], np.cumsum(lengths)]),
            flat=np.flatnonzero(real.ravel()),
            rows=StoredRows(base.spec.row_dtype, base.spec.hidden_size, count),
            positions=np.full(count, NO_ROW, np.int64),
            estimated=np.zeros(count, bool),
        )
        for (domain, delta, policy), members in _group(tasks, _source).items():
            tenants = [(tasks[member].item.requester, int(lengths[member])) for member in members]
            self._look_up_domain(
                search, Function(base.digest, delta), domain, policy, search.tokens_of(members), tenants
            )
        windows, groups, places, sources = self._collect_missing(search, tasks)
        spread = np.full(real.size, NO_ROW, np.int64)
        spread[search.flat] = search.positions  # after the miss cache has given its rows
        rows = search.rows
        return WindowRows(
            codes=self._send(rows.codes[: rows.count]),
            scales=None if rows.scales is None else self._send(rows.scales[: rows.count]),
            positions=self._send(spread),
            windows=self._send(windows),
            groups=groups,
            places=self._send(places),
            sources=self._send(sources),
            estimates=tuple(search.estimates),
        )

    def _look_up_domain(
        self,
        search: _Search,
        function: Function,
        domain: str,
        policy: MissPolicy,
        tokens: NDArray[np.int64],
        tenants: Sequence[tuple[int | None, int]],
    ) -> None:
        """`tenants` are who looks up how many of the tokens, in order; see `FrequencyCounter.count`."""
        tree, keys = search.tree, search.keys[tokens]
        approximate = policy is MissPolicy.BACKOFF
        # No tree was published, or the domain or its delta is newer than the tree: all is missing, and is counted.
        if tree.number == 0 or tree.function_of(domain) != function.digest:
            none = np.zeros(len(keys), bool)
            self._frequencies.count(function.base, domain, keys, none, 0, tenants=tenants, approximate=approximate)
            return
        estimator = self._deltas.estimator(search.base, function.delta) if approximate else None
        found = tree.gather(domain, keys, search.rows, backoff=approximate and estimator is None)
        search.positions[tokens] = found.positions
        if estimator is not None:
            self._estimate(search, domain, estimator, tokens[found.positions == NO_ROW])
        self._frequencies.count(
            function.base,
            domain,
            keys,
            found.exact,
            tree.number,
            tenants=tenants,
            inherited=int(np.count_nonzero(found.inherited & found.exact)),
            approximate=approximate,
        )

    def _estimate(self, search: _Search, domain: str, estimator: ServedEstimator, tokens: NDArray[np.int64]) -> None:
        """Estimate what is missing at `tokens`. Windows whose unigram rows are missing too are left to be computed."""
        if not len(tokens):
            return
        unique, inverse = np.unique(search.keys[tokens], return_inverse=True)
        unigrams = TokensOfWindows.of(search.tree, domain, unique, search.base.spec)
        group, chosen = unigrams.group(estimator, inverse.reshape(-1), search.flat[tokens], self._send)
        search.estimated[tokens[chosen]] = True
        search.estimates.append(group)

    def _collect_missing(
        self, search: _Search, tasks: Sequence[SequenceTask]
    ) -> tuple[NDArray[np.int64], tuple[WindowGroup, ...], NDArray[np.int64], NDArray[np.int64]]:
        """Take rows from the miss cache; of what is missing still, each different window once for each function and
        scope.

        Returns windows, groups, places and sources as `WindowRows` has them.
        """
        base, groups, count = search.base, [], 0
        windows, places, sources = [np.empty((0, 3), np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for (delta, scope), members in _group(tasks, _kept_with).items():
            tokens = search.tokens_of(members)
            tokens = tokens[(search.positions[tokens] == NO_ROW) & ~search.estimated[tokens]]
            if not len(tokens):
                continue
            function = Function(base.digest, delta).digest
            unique, inverse = np.unique(search.keys[tokens], return_inverse=True)
            kept = base.miss_cache.gather(function, scope, unique, search.rows)
            search.positions[tokens] = kept[inverse.reshape(-1)]
            missing = kept == NO_ROW
            if not missing.any():
                continue
            to_compute = missing[inverse.reshape(-1)]
            lora = None if delta is None else self._deltas.get(base, delta).lora
            groups.append(WindowGroup(function, scope, lora, unique[missing]))
            windows.append(unpack(unique[missing]))
            places.append(search.flat[tokens[to_compute]])
            sources.append((np.cumsum(missing) - 1)[inverse.reshape(-1)[to_compute]] + count)
            count += int(np.count_nonzero(missing))
        return np.concatenate(windows), tuple(groups), np.concatenate(places), np.concatenate(sources)


def _source(task: SequenceTask) -> tuple[str, str | None, MissPolicy]:
    model = task.item.model
    return model.domain, model.delta, model.miss_policy


def _kept_with(task: SequenceTask) -> tuple[str | None, str]:
    return task.item.model.delta, task.item.model.scope


def _group(tasks: Sequence[SequenceTask], key: Callable[[SequenceTask], K]) -> dict[K, list[int]]:
    """Rows by the key of their task, in the order of first appearance."""
    grouped: dict[K, list[int]] = defaultdict(list)
    for row, task in enumerate(tasks):
        grouped[key(task)].append(row)
    return grouped
