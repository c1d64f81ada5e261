"""What a model answered to each text, counted, so that two models can be compared on the same texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.models.text import OUTSIDE
from hmi.training.data import Span
from hmi.training.reports.metrics import Flags, Indices, Metrics

__all__ = [
    "AnswerCounts",
    "Evaluation",
    "PointsDelta",
    "ScoreDelta",
    "class_counts",
    "compare_evaluations",
    "entity_counts",
    "multi_label_counts",
    "word_counts",
]

Counts = NDArray[np.int32]
Figures = NDArray[np.float64]

_CELLS = 2**20  # of texts times labels at once


@dataclass(frozen=True, slots=True, eq=False)
class AnswerCounts:
    """For each text and label how often the label was rightly given, given, and true: each int32 `[texts, labels]`.

    The score of every task's `Metrics` is the F1 of sums over these, accuracy too: where each text has one label and is
    given one, both are the share of right ones.

    Attributes:
        told: bool `[labels]`, the labels that the score is over: all but `O` of words that are tagged one by one.
    """

    right: Counts
    said: Counts
    true: Counts
    told: Flags

    def __len__(self) -> int:
        return len(self.right)

    def without_each(self) -> tuple[Figures, Figures]:
        """Score and macro-F1 of all texts but one, for each one: two of float64 `[texts]`."""
        step = max(1, _CELLS // len(self.told))
        parts = [self._without(slice(start, start + step)) for start in range(0, len(self), step)]
        return np.concatenate([score for score, _ in parts]), np.concatenate([macro for _, macro in parts])

    def _without(self, texts: slice) -> tuple[Figures, Figures]:
        right, said, true = (counts.sum(0) - counts[texts] for counts in (self.right, self.said, self.true))
        score = _f1(*(counts[:, self.told].sum(1) for counts in (right, said, true)))
        seen = true > 0
        return score, (_f1(right, said, true) * seen).sum(1) / seen.sum(1).clip(min=1)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came out of judging a model, in all and text by text."""

    metrics: Metrics
    tally: AnswerCounts


@dataclass(frozen=True, slots=True)
class PointsDelta:
    """A difference of two shares in points (hundredths), and its standard error."""

    points: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.points:+.1f} ± {self.standard_error:.1f}"


@dataclass(frozen=True, slots=True)
class ScoreDelta:
    """How much more one model scores than another on the same texts."""

    score: PointsDelta
    macro_f1: PointsDelta


def compare_evaluations(one: Evaluation, other: Evaluation) -> ScoreDelta:
    """How much more `one` scores than `other`, both judged on the same texts in the same order.

    The error is the jackknife's (Efron and Stein, 1981): for accuracy it is that of a mean of paired differences, and
    it holds for figures too that are no mean over texts. What another training would have brought is not in it.
    """
    score, macro = (
        100 * _jackknife(mine - theirs)
        for mine, theirs in zip(one.tally.without_each(), other.tally.without_each(), strict=True)
    )
    return ScoreDelta(
        PointsDelta(100 * (one.metrics.score - other.metrics.score), score),
        PointsDelta(100 * (one.metrics.values["macro_f1"] - other.metrics.values["macro_f1"]), macro),
    )


def _jackknife(without_each: Figures) -> float:
    count = len(without_each)
    return math.sqrt((count - 1) / count * float(((without_each - without_each.mean()) ** 2).sum()))


def _f1(right: NDArray[np.int64], said: NDArray[np.int64], true: NDArray[np.int64]) -> Figures:
    figures: Figures = 2 * right / (said + true).clip(min=1)  # without either, nothing is right
    return figures


def class_counts(labels: Sequence[str], true: Indices, said: Indices) -> AnswerCounts:
    """Of one label for each text: int64 `[n]`, places in `labels`."""
    texts = np.arange(len(true))
    return _counted(texts, true, said, len(true), np.ones(len(labels), np.bool_))


def word_counts(labels: Sequence[str], true: Sequence[Indices], said: Sequence[Indices]) -> AnswerCounts:
    """Of one label for each word of each text."""
    texts = np.repeat(np.arange(len(true)), [len(each) for each in true])
    told = np.array([label != OUTSIDE for label in labels])
    return _counted(texts, np.concatenate(true), np.concatenate(said), len(true), told)


def _counted(texts: Indices, true: Indices, said: Indices, count: int, told: Flags) -> AnswerCounts:
    def spread(which: Indices, labels: Indices) -> Counts:
        flat = np.bincount(which * len(told) + labels, minlength=count * len(told))
        return flat.reshape(count, len(told)).astype(np.int32)

    hit = true == said
    return AnswerCounts(spread(texts[hit], true[hit]), spread(texts, said), spread(texts, true), told)


def multi_label_counts(true: Flags, said: Flags) -> AnswerCounts:
    """Of any number of labels for each text: bool `[n, labels]`."""
    right, given, wanted = (flags.astype(np.int32) for flags in (true & said, said, true))
    return AnswerCounts(right, given, wanted, np.ones(true.shape[1], np.bool_))


def entity_counts(
    labels: Sequence[str], true: Sequence[Sequence[Span]], said: Sequence[Sequence[Span]]
) -> AnswerCounts:
    """Of the named parts of each text; one is right where both ends and the label are."""
    places = {label: place for place, label in enumerate(labels)}

    def spread(parts: Sequence[set[Span]]) -> Counts:
        counts = np.zeros((len(parts), len(labels)), np.int32)
        for text, spans in enumerate(parts):
            for span in spans:
                counts[text, places[span.label]] += 1
        return counts

    wanted, given = [set(spans) for spans in true], [set(spans) for spans in said]
    both = [these & those for these, those in zip(wanted, given, strict=True)]
    return AnswerCounts(spread(both), spread(given), spread(wanted), np.ones(len(labels), np.bool_))
