"""A model's answers counted text by text, so that two models can be compared on the same texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.models.text import OUTSIDE
from hmi.training.data import Span
from hmi.training.reports.metrics import Flags, Indices, Metrics

Counts = NDArray[np.int32]
Scores = NDArray[np.float64]

_CELLS = 2**20  # of texts times labels at once


@dataclass(frozen=True, slots=True, eq=False)
class AnswerCounts:
    """For each text and label how often the label was predicted correctly, predicted, and true.

    The score of every task's `Metrics` is the F1 of sums over these. Accuracy is that too: with one true and one
    predicted label for each text, both are the share of correct ones.

    Attributes:
        right, predicted, true: int32 `[texts, labels]`.
        scored: bool `[labels]`, the labels that the score includes: all but `O` of tagged words.
    """

    right: Counts
    predicted: Counts
    true: Counts
    scored: Flags

    def __len__(self) -> int:
        return len(self.right)

    def without_each(self) -> tuple[Scores, Scores]:
        """Score and macro-F1 of all texts but one, for each text: two of float64 `[texts]`."""
        step = max(1, _CELLS // len(self.scored))
        parts = [self._without(slice(start, start + step)) for start in range(0, len(self), step)]
        return np.concatenate([score for score, _ in parts]), np.concatenate([macro for _, macro in parts])

    def _without(self, texts: slice) -> tuple[Scores, Scores]:
        right, predicted, true = (counts.sum(0) - counts[texts] for counts in (self.right, self.predicted, self.true))
        score = _f1(*(counts[:, self.scored].sum(1) for counts in (right, predicted, true)))
        seen = true > 0
        return score, (_f1(right, predicted, true) * seen).sum(1) / seen.sum(1).clip(min=1)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model's metrics, and its answers to each text."""

    metrics: Metrics
    counts: AnswerCounts


@dataclass(frozen=True, slots=True)
class PointsDelta:
    """A difference of two shares in points (hundredths), and its standard error."""

    points: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.points:+.1f} ± {self.standard_error:.1f}"


@dataclass(frozen=True, slots=True)
class ScoreDelta:
    """How much higher one model scores than another on the same texts."""

    score: PointsDelta
    macro_f1: PointsDelta


def compare_evaluations(one: Evaluation, other: Evaluation) -> ScoreDelta:
    """How much higher `one` scores than `other`; both evaluate the same texts in the same order.

    The standard error is the jackknife's (Efron and Stein, 1981). For accuracy it is that of a mean of paired
    differences, and it holds for metrics that are no mean over texts. It does not include the variance of training.
    """
    score, macro = (
        100 * _jackknife(ours - theirs)
        for ours, theirs in zip(one.counts.without_each(), other.counts.without_each(), strict=True)
    )
    return ScoreDelta(
        PointsDelta(100 * (one.metrics.score - other.metrics.score), score),
        PointsDelta(100 * (one.metrics.values["macro_f1"] - other.metrics.values["macro_f1"]), macro),
    )


def _jackknife(without_each: Scores) -> float:
    count = len(without_each)
    return math.sqrt((count - 1) / count * float(((without_each - without_each.mean()) ** 2).sum()))


def _f1(right: NDArray[np.int64], predicted: NDArray[np.int64], true: NDArray[np.int64]) -> Scores:
    scores: Scores = 2 * right / (predicted + true).clip(min=1)  # without either, nothing is right
    return scores


def class_counts(labels: Sequence[str], true: Indices, predicted: Indices) -> AnswerCounts:
    """Of one label for each text: int64 `[n]`, indices of labels."""
    texts = np.arange(len(true))
    return _count(texts, true, predicted, len(true), np.ones(len(labels), np.bool_))


def word_counts(labels: Sequence[str], true: Sequence[Indices], predicted: Sequence[Indices]) -> AnswerCounts:
    """Of one label for each word of each text."""
    texts = np.repeat(np.arange(len(true)), [len(each) for each in true])
    scored = np.array([label != OUTSIDE for label in labels])
    return _count(texts, np.concatenate(true), np.concatenate(predicted), len(true), scored)


def _count(texts: Indices, true: Indices, predicted: Indices, count: int, scored: Flags) -> AnswerCounts:
    def spread(which: Indices, labels: Indices) -> Counts:
        flat = np.bincount(which * len(scored) + labels, minlength=count * len(scored))
        return flat.reshape(count, len(scored)).astype(np.int32)

    right = true == predicted
    return AnswerCounts(spread(texts[right], true[right]), spread(texts, predicted), spread(texts, true), scored)


def multi_label_counts(true: Flags, predicted: Flags) -> AnswerCounts:
    """Of any number of labels for each text: bool `[n, labels]`."""
    right, given, expected = (flags.astype(np.int32) for flags in (true & predicted, predicted, true))
    return AnswerCounts(right, given, expected, np.ones(true.shape[1], np.bool_))


def entity_counts(
    labels: Sequence[str], true: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]]
) -> AnswerCounts:
    """Of the entities of each text; one is right if both ends and the label are."""
    places = {label: place for place, label in enumerate(labels)}

    def spread(texts: Sequence[set[Span]]) -> Counts:
        counts = np.zeros((len(texts), len(labels)), np.int32)
        for text, spans in enumerate(texts):
            for span in spans:
                counts[text, places[span.label]] += 1
        return counts

    expected, given = [set(spans) for spans in true], [set(spans) for spans in predicted]
    right = [these & those for these, those in zip(expected, given, strict=True)]
    return AnswerCounts(spread(right), spread(given), spread(expected), np.ones(len(labels), np.bool_))
