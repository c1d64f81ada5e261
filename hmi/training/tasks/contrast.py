"""Embeddings: a text's vector is trained to be nearer to that of its positive text than to any other's.

The loss is the cross entropy of the positive among all candidates (InfoNCE, van den Oord et al., 2018; with negatives
from the batch, Henderson et al., 2017), over cosines divided by a temperature.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hmi.adapters.maths import mean_pool
from hmi.errors import InvalidInput
from hmi.training.data import PairExample
from hmi.training.reports import Metrics, ranking_metrics
from hmi.training.tasks.network import Network
from hmi.training.tasks.objective import Objective, Preprocessor, TaskData

_QUERIES = 512  # texts whose cosines with all candidates are held at once


def require_contrast(examples: Sequence[PairExample]) -> None:
    """Raises `InvalidInput` if there is nothing to contrast with."""
    if len({example.positive for example in examples} | {example.negative for example in examples} - {None}) < 2:
        raise InvalidInput("embeddings need at least two different texts as positives or negatives")


@dataclass(frozen=True, slots=True, eq=False)
class PairData(TaskData):
    """Each distinct text is kept once and named by its place in `states`."""

    query: NDArray[np.int64]  # [n]
    positive: NDArray[np.int64]  # [n]
    negative: NDArray[np.int64]  # [n], -1 for none
    positives_of: dict[int, set[int]]  # by query text, all its positive texts

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.states.lengths[self.query]

    @property
    def tokens(self) -> NDArray[np.int64]:
        lengths = np.append(self.states.lengths, 0)  # -1 selects the 0
        tokens: NDArray[np.int64] = lengths[self.query] + lengths[self.positive] + lengths[self.negative]
        return tokens


class Contrast(Objective[PairData]):
    """Similar texts get near vectors. There is no head; the mean over the last states is the vector."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def prepare(self, examples: Sequence[PairExample], texts: Preprocessor) -> PairData:
        numbers: dict[str, int] = {}

        def number(text: str | None) -> int:
            return -1 if text is None else numbers.setdefault(text, len(numbers))

        triples = [(number(each.text), number(each.positive), number(each.negative)) for each in examples]
        positives_of: dict[int, set[int]] = defaultdict(set)
        for text, positive, _ in triples:
            positives_of[text].add(positive)
        query, positives, negatives = np.array(triples, np.int64).T
        return PairData(texts.states(list(numbers)), query, positives, negatives, positives_of)

    def loss(self, network: Network, data: PairData, chosen: Sequence[int]) -> Tensor:
        query, positive, negative = data.query[chosen], data.positive[chosen], data.negative[chosen]
        candidates = np.unique(np.concatenate([positive, negative[negative >= 0]]))
        texts, places = np.unique(np.concatenate([query, candidates]), return_inverse=True)
        vectors = _embed(*network.upper(data.states, texts.tolist()))  # [texts, H]
        index = torch.from_numpy(places.reshape(-1)).to(network.device)
        queries, among = vectors[index[: len(query)]], vectors[index[len(query) :]]
        cosines, right = _cosines(queries, among, data, np.array(chosen), candidates)
        return F.cross_entropy(cosines / self._temperature, right)

    @torch.no_grad()
    def evaluate(self, network: Network, data: PairData) -> Metrics:
        vectors = torch.empty(len(data.states), network.model.spec.hidden_size)
        for chosen, hidden, mask in network.evaluation_batches(data.states):
            vectors[chosen] = _embed(hidden, mask).cpu()
        candidates = np.unique(np.concatenate([data.positive, data.negative[data.negative >= 0]]))
        ranks, total = [], 0.0
        for start in range(0, len(data.query), _QUERIES):
            rows = np.arange(start, min(start + _QUERIES, len(data.query)))
            cosines, right = _cosines(vectors[data.query[rows]], vectors[candidates], data, rows, candidates)
            total += len(rows) * float(F.cross_entropy(cosines / self._temperature, right))
            ranks.append((cosines > cosines.gather(1, right[:, None])).sum(1).numpy())
        return ranking_metrics(np.concatenate(ranks), total / len(data.query))


def _cosines(
    queries: Tensor, among: Tensor, data: PairData, rows: NDArray[np.int64], candidates: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Cosines `[n, m]` and the place of each positive among the candidates `[n]`.

    `queries` are unit vectors `[n, H]` of `rows`, `among` `[m, H]` of `candidates`, which ascend. The cosine is minus
    infinity for what is no wrong answer: the query's own text and its other positives.
    """
    excluded = np.zeros((len(rows), len(candidates)), np.bool_)
    for place, row in enumerate(rows.tolist()):
        text, positive = int(data.query[row]), int(data.positive[row])
        others = np.array(sorted((data.positives_of[text] | {text}) - {positive}), np.int64)
        excluded[place] = np.isin(candidates, others)
    cosines = (queries @ among.T).masked_fill(torch.from_numpy(excluded).to(queries.device), -torch.inf)
    right = torch.from_numpy(np.searchsorted(candidates, data.positive[rows])).to(queries.device)
    return cosines, right


def _embed(hidden: Tensor, mask: Tensor) -> Tensor:
    """The embedding as in serving: the normalised mean over real tokens, float32 `[B, H]`."""
    return F.normalize(mean_pool(hidden.float(), mask), dim=-1)
