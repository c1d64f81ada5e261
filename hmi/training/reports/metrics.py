"""The metrics of an evaluation, as every task reports them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LabelScore:
    """Scores of one label, shares 0..1, and how often it is true. Without predictions or true ones they are 0."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """An evaluation on text that was not trained on."""

    name: str  # of the metric that decides which model is better, `score`; a higher one is
    loss: float  # the objective's
    values: Mapping[str, float]  # every metric of the task, shares 0..1 but for perplexity
    labels: tuple[LabelScore, ...] = ()  # scores of each label
    # How often label i (row) was answered with label j; None if labels do not exclude each other, or for more than 100.
    confusion: tuple[tuple[int, ...], ...] | None = None

    @property
    def score(self) -> float:
        return self.values[self.name]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"score": self.score}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Metrics:
        """The inverse of `to_json`. Raises `KeyError` or `TypeError`."""
        confusion = raw["confusion"]
        return cls(
            raw["name"],
            raw["loss"],
            dict(raw["values"]),
            tuple(LabelScore(**each) for each in raw["labels"]),
            None if confusion is None else tuple(map(tuple, confusion)),
        )


def ranking_metrics(ranks: NDArray[np.int64], loss: float = 0.0) -> Metrics:
    """Of the rank of each query's positive among all candidates: int64 `[n]`, 0 is the first."""
    values = {"recall_at_1": float((ranks == 0).mean()), "mean_reciprocal_rank": float((1 / (ranks + 1)).mean())}
    return Metrics("recall_at_1", loss, values)


def language_metrics(loss: float, right: int, tokens: int) -> Metrics:
    """Of next tokens: `loss` is the mean over the tokens in nats, `token_likelihood` the geometric mean of their
    probabilities, which is one over the perplexity."""
    values = {
        "token_likelihood": math.exp(-loss),
        "token_accuracy": right / tokens if tokens else 0.0,
        "perplexity": math.exp(min(loss, 700.0)),
    }
    return Metrics("token_likelihood", loss, values)
