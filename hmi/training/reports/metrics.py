"""The metrics of each task, from true and predicted answers."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmi.models.text import OUTSIDE
from hmi.training.data import Span

_MOST_CONFUSED = 100  # labels; a larger table is unreadable

Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]


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
    """An evaluation on text that was not trained on.

    Attributes:
        name: Of the metric that decides which model is better, `score`; a higher one is.
        loss: The objective's.
        values: Every metric of the task, shares 0..1 but for perplexity.
        labels: Scores of each label.
        confusion: How often label i (row) was answered with label j; None if labels do not exclude each other, or
            there are more than 100.
    """

    name: str
    loss: float
    values: Mapping[str, float]
    labels: tuple[LabelScore, ...] = ()
    confusion: tuple[tuple[int, ...], ...] | None = None

    @property
    def score(self) -> float:
        return self.values[self.name]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
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


def class_metrics(labels: Sequence[str], true: Indices, predicted: Indices, loss: float = 0.0) -> Metrics:
    """Of one label for each of n texts or words: int64 `[n]`, indices of `labels`."""
    count = len(labels)
    confusion = np.bincount(true * count + predicted, minlength=count * count).reshape(count, count)
    scores = _scores(labels, confusion.diagonal(), confusion.sum(0), confusion.sum(1))
    values = {"accuracy": _ratio(confusion.trace(), confusion.sum()), "macro_f1": _macro(scores)}
    table = tuple(map(tuple, confusion.tolist())) if count <= _MOST_CONFUSED else None
    return Metrics("accuracy", loss, values, scores, table)


def word_metrics(labels: Sequence[str], true: Indices, predicted: Indices, loss: float = 0.0) -> Metrics:
    """As `class_metrics`, with the micro-F1 over all labels but `O`."""
    plain = class_metrics(labels, true, predicted, loss)
    scored = np.array([label != OUTSIDE for label in labels])
    right = (true == predicted) & scored[true]
    f1 = _f1(right.sum(), scored[predicted].sum(), scored[true].sum())
    return dataclasses.replace(plain, name="token_f1", values={**plain.values, "token_f1": f1})


def multi_label_metrics(labels: Sequence[str], true: Flags, predicted: Flags, loss: float = 0.0) -> Metrics:
    """Of any number of labels for each text: bool `[n, labels]`. `subset_accuracy` is the share of texts with all
    right."""
    right, predicted_count, support = (true & predicted).sum(0), predicted.sum(0), true.sum(0)
    scores = _scores(labels, right, predicted_count, support)
    values = {
        "micro_f1": _f1(right.sum(), predicted_count.sum(), support.sum()),
        "macro_f1": _macro(scores),
        "subset_accuracy": float((true == predicted).all(1).mean()),
    }
    return Metrics("micro_f1", loss, values, scores)


def entity_metrics(
    labels: Sequence[str], true: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]], loss: float = 0.0
) -> Metrics:
    """Of the entities of each text; one is right if both ends and the label are (Tjong Kim Sang, CoNLL-2003)."""
    pairs = [(set(these), set(those)) for these, those in zip(true, predicted, strict=True)]

    def count(of: Callable[[set[Span], set[Span]], set[Span]]) -> Indices:
        found = Counter(span.label for these, those in pairs for span in of(these, those))
        return np.array([found[label] for label in labels], np.int64)

    right = count(lambda these, those: these & those)
    predicted_count, support = count(lambda these, those: those), count(lambda these, those: these)
    scores = _scores(labels, right, predicted_count, support)
    values = {
        "entity_f1": _f1(right.sum(), predicted_count.sum(), support.sum()),
        "entity_precision": _ratio(right.sum(), predicted_count.sum()),
        "entity_recall": _ratio(right.sum(), support.sum()),
        "macro_f1": _macro(scores),
    }
    return Metrics("entity_f1", loss, values, scores)


def ranking_metrics(ranks: Indices, loss: float = 0.0) -> Metrics:
    """Of the rank of each query's positive among all candidates: int64 `[n]`, 0 is the first."""
    values = {"recall_at_1": float((ranks == 0).mean()), "mean_reciprocal_rank": float((1 / (ranks + 1)).mean())}
    return Metrics("recall_at_1", loss, values)


def language_metrics(loss: float, right: int, tokens: int) -> Metrics:
    """Of next tokens: `loss` is the mean over the tokens in nats, `token_likelihood` the geometric mean of their
    probabilities, which is one over the perplexity."""
    values = {
        "token_likelihood": math.exp(-loss),
        "token_accuracy": _ratio(right, tokens),
        "perplexity": math.exp(min(loss, 700.0)),
    }
    return Metrics("token_likelihood", loss, values)


def _scores(labels: Sequence[str], right: Indices, predicted: Indices, support: Indices) -> tuple[LabelScore, ...]:
    return tuple(
        LabelScore(label, _ratio(r, s), _ratio(r, t), _f1(r, s, t), int(t))
        for label, r, s, t in zip(labels, right, predicted, support, strict=True)
    )


def _macro(scores: Sequence[LabelScore]) -> float:
    """Mean F1 over the labels that occur."""
    seen = [score.f1 for score in scores if score.support]
    return sum(seen) / len(seen) if seen else 0.0


def _f1(right: float, predicted: float, support: float) -> float:
    return _ratio(2 * right, predicted + support)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
