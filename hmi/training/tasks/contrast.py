"""Embeddings: a text's vector comes to lie nearer to that of the text which belongs to it than to any other's.

The loss is the cross entropy of the right one among all candidates (InfoNCE, van den Oord et al., 2018; with negatives
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

from hmi.adapters import Pooling
from hmi.adapters.maths import mean_pool
from hmi.errors import InvalidInput
from hmi.training.data import PairExample
from hmi.training.lower import LowerStates
from hmi.training.reports import Metrics, ranking_metrics
from hmi.training.tasks.network import Network
from hmi.training.tasks.objective import Preprocessor

__all__ = ["Contrast", "PairPart", "require_contrast"]

_ASKING = 512  # texts whose cosines with all candidates are held at once


def require_contrast(examples: Sequence[PairExample]) -> None:
    """Raises `InvalidInput` where there is nothing to contrast with."""
    if len({example.positive for example in examples} | {example.negative for example in examples} - {None}) < 2:
        raise InvalidInput("embeddings need at least two different texts that others belong to, or do not")


@dataclass(frozen=True, slots=True, eq=False)
class PairPart:
    """Preprocessor are kept once, and named by their place in `states`.

    Attributes:
        asking, positive: int64 `[n]`; negative: int64 `[n]`, -1 where there is none.
        belonging: By asking text, all that belong to it.
    """

    states: LowerStates
    asking: NDArray[np.int64]
    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    belonging: dict[int, set[int]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.states.lengths[self.asking]

    @property
    def tokens(self) -> NDArray[np.int64]:
        lengths = np.append(self.states.lengths, 0)  # which -1 finds
        tokens: NDArray[np.int64] = lengths[self.asking] + lengths[self.positive] + lengths[self.negative]
        return tokens


class Contrast:
    """Which texts are alike; there is no head, and the mean over the last states is the vector."""

    pooling = Pooling.MEAN
    labels: tuple[str, ...] = ()

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def prepare(self, examples: Sequence[PairExample], texts: Preprocessor) -> PairPart:
        numbers: dict[str, int] = {}

        def number(text: str | None) -> int:
            return -1 if text is None else numbers.setdefault(text, len(numbers))

        triples = [(number(each.text), number(each.positive), number(each.negative)) for each in examples]
        belonging: dict[int, set[int]] = defaultdict(set)
        for text, positive, _ in triples:
            belonging[text].add(positive)
        asking, positives, negatives = np.array(triples, np.int64).T
        return PairPart(texts.states(list(numbers)), asking, positives, negatives, belonging)

    def loss(self, network: Network, part: PairPart, chosen: Sequence[int]) -> Tensor:
        asking, positive, negative = part.asking[chosen], part.positive[chosen], part.negative[chosen]
        candidates = np.unique(np.concatenate([positive, negative[negative >= 0]]))
        texts, places = np.unique(np.concatenate([asking, candidates]), return_inverse=True)
        vectors = _normal(*network.upper(part.states, texts.tolist()))  # [texts, H]
        index = torch.from_numpy(places.reshape(-1)).to(network.device)
        return self._loss(
            vectors[index[: len(asking)]], vectors[index[len(asking) :]], part, np.array(chosen), candidates
        )

    @torch.no_grad()
    def judge(self, network: Network, part: PairPart) -> Metrics:
        vectors = torch.empty(len(part.states), network.model.spec.hidden_size)
        for chosen, hidden, mask in network.judged(part.states):
            vectors[chosen] = _normal(hidden, mask).cpu()
        candidates = np.unique(np.concatenate([part.positive, part.negative[part.negative >= 0]]))
        ranks, total = [], 0.0
        for start in range(0, len(part.asking), _ASKING):
            rows = np.arange(start, min(start + _ASKING, len(part.asking)))
            asking, among = vectors[part.asking[rows]], vectors[candidates]
            total += len(rows) * float(self._loss(asking, among, part, rows, candidates))
            cosines = self._contrasted(asking, among, part, rows, candidates)
            right = torch.from_numpy(np.searchsorted(candidates, part.positive[rows]))
            ranks.append((cosines > cosines.gather(1, right[:, None])).sum(1).numpy())
        return ranking_metrics(np.concatenate(ranks), total / len(part.asking))

    def counts(self, part: PairPart) -> tuple[int, ...]:
        return ()

    def baseline(self, network: Network, learnt: PairPart, judging: PairPart) -> float:
        """Of the base model as it is."""
        return self.judge(network, judging).score

    def _loss(
        self, asking: Tensor, among: Tensor, part: PairPart, rows: NDArray[np.int64], candidates: NDArray[np.int64]
    ) -> Tensor:
        """asking [n, H], among [m, H], unit vectors of `rows` and of `candidates` (ascending)."""
        right = torch.from_numpy(np.searchsorted(candidates, part.positive[rows])).to(asking.device)
        return F.cross_entropy(self._contrasted(asking, among, part, rows, candidates) / self._temperature, right)

    def _contrasted(
        self, asking: Tensor, among: Tensor, part: PairPart, rows: NDArray[np.int64], candidates: NDArray[np.int64]
    ) -> Tensor:
        """Cosines [n, m]; minus infinity for what is no wrong answer: the asking text, and what else belongs to it."""
        excused = np.zeros((len(rows), len(candidates)), np.bool_)
        for place, row in enumerate(rows.tolist()):
            text, positive = int(part.asking[row]), int(part.positive[row])
            others = np.array(sorted((part.belonging[text] | {text}) - {positive}), np.int64)
            excused[place] = np.isin(candidates, others)
        return (asking @ among.T).masked_fill(torch.from_numpy(excused).to(asking.device), -torch.inf)


def _normal(hidden: Tensor, mask: Tensor) -> Tensor:
    """As serving makes embeddings: the normalised mean over real tokens, float32 `[B, H]`."""
    return F.normalize(mean_pool(hidden.float(), mask), dim=-1)
