"""Evaluations of label predictions: metrics over all texts, and counts text by text, so that two can be compared."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.models.text import OUTSIDE
from hmi.training.data import Span
from hmi.training.reports.metrics import LabelScore, Metrics

Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]
Counts = NDArray[np.int32]
Scores = NDArray[np.float64]

_CELLS = 2**20  # of texts times labels at once
_MOST_CONFUSED = 100  # labels; a larger table is unreadable


@dataclass(frozen=True, slots=True, eq=False)
class AnswerCounts:
    """For each text and label how often the label was predicted correctly, predicted, and true.

    The score of every task's `Metrics` is the F1 of sums over these. Accuracy is that too: with one true and one
    predicted label for each text, both are the share of correct ones.
    """

    right: Counts  # [texts, labels]
    predicted: Counts  # [texts, labels]
    true: Counts  # [texts, labels]
    scored: Flags  # [labels], True for those that the score includes: all but `O` of tagged words

    def __len__(self) -> int:
        return len(self.right)

    def sums(self) -> tuple[Indices, Indices, Indices]:
        """Right, predicted and true of each label, over all texts."""
        return self.right.sum(0), self.predicted.sum(0), self.true.sum(0)

    def score(self) -> float:
        return float(_f1(*(sums[self.scored].sum() for sums in self.sums())))

    def label_scores(self, labels: Sequence[str]) -> tuple[LabelScore, ...]:
        right, predicted, true = self.sums()
        columns = (right / predicted.clip(min=1), right / true.clip(min=1), _f1(right, predicted, true), true)
        return tuple(map(LabelScore, labels, *(column.tolist() for column in columns)))

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


def _f1(right: Indices, predicted: Indices, true: Indices) -> Scores:
    scores: Scores = 2 * right / (predicted + true).clip(min=1)  # without either, nothing is right
    return scores


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model's metrics, and its answers to each text."""

    metrics: Metrics
    counts: AnswerCounts


def evaluate_classes(labels: Sequence[str], true: Indices, predicted: Indices, loss: float = 0.0) -> Evaluation:
    """Of one label for each text: int64 `[n]`, indices of labels."""
    counts = _count(np.arange(len(true)), true, predicted, len(true), np.ones(len(labels), np.bool_))
    return Evaluation(_class_metrics(labels, true, predicted, counts, loss), counts)


def evaluate_words(
    labels: Sequence[str], true: Sequence[Indices], predicted: Sequence[Indices], loss: float = 0.0
) -> Evaluation:
    """Of one label for each word of each text. The score is the micro-F1 over all labels but `O`."""
    texts = np.repeat(np.arange(len(true)), [len(each) for each in true])
    all_true, all_predicted = np.concatenate(true), np.concatenate(predicted)
    scored = np.array([label != OUTSIDE for label in labels])
    counts = _count(texts, all_true, all_predicted, len(true), scored)
    metrics = _class_metrics(labels, all_true, all_predicted, counts, loss)
    values = {**metrics.values, "token_f1": counts.score()}
    return Evaluation(dataclasses.replace(metrics, name="token_f1", values=values), counts)


def _count(texts: Indices, true: Indices, predicted: Indices, count: int, scored: Flags) -> AnswerCounts:
    def spread(which: Indices, labels: Indices) -> Counts:
        flat = np.bincount(which * len(scored) + labels, minlength=count * len(scored))
        return flat.reshape(count, len(scored)).astype(np.int32)

    right = true == predicted
    return AnswerCounts(spread(texts[right], true[right]), spread(texts, predicted), spread(texts, true), scored)


def _class_metrics(
    labels: Sequence[str], true: Indices, predicted: Indices, counts: AnswerCounts, loss: float
) -> Metrics:
    size, scores = len(labels), counts.label_scores(labels)
    accuracy = float((true == predicted).mean()) if len(true) else 0.0
    confusion = None
    if size <= _MOST_CONFUSED:
        table = np.bincount(true * size + predicted, minlength=size * size).reshape(size, size)
        confusion = tuple(map(tuple, table.tolist()))
    return Metrics("accuracy", loss, {"accuracy": accuracy, "macro_f1": _macro(scores)}, scores, confusion)


def evaluate_multi_label(labels: Sequence[str], true: Flags, predicted: Flags, loss: float = 0.0) -> Evaluation:
    """Of any number of labels for each text: bool `[n, labels]`. `subset_accuracy`: share of texts with all right."""
    right, given, expected = (flags.astype(np.int32) for flags in (true & predicted, predicted, true))
    counts = AnswerCounts(right, given, expected, np.ones(len(labels), np.bool_))
    scores = counts.label_scores(labels)
    subset = float((true == predicted).all(1).mean())
    values = {"micro_f1": counts.score(), "macro_f1": _macro(scores), "subset_accuracy": subset}
    return Evaluation(Metrics("micro_f1", loss, values, scores), counts)


def evaluate_entities(
    labels: Sequence[str], true: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]], loss: float = 0.0
) -> Evaluation:
    """Of the entities of each text; one is right if both ends and the label are (Tjong Kim Sang, CoNLL-2003)."""
    places = {label: place for place, label in enumerate(labels)}

    def spread(texts: Sequence[set[Span]]) -> Counts:
        counts = np.zeros((len(texts), len(labels)), np.int32)
        for text, spans in enumerate(texts):
            for span in spans:
                counts[text, places[span.label]] += 1
        return counts

    expected, given = [set(spans) for spans in true], [set(spans) for spans in predicted]
    right = [these & those for these, those in zip(expected, given, strict=True)]
    counts = AnswerCounts(spread(right), spread(given), spread(expected), np.ones(len(labels), np.bool_))
    scores = counts.label_scores(labels)
    all_right, all_given, all_expected = (int(sums.sum()) for sums in counts.sums())
    values = {
        "entity_f1": counts.score(),
        "entity_precision": all_right / max(1, all_given),
        "entity_recall": all_right / max(1, all_expected),
        "macro_f1": _macro(scores),
    }
    return Evaluation(Metrics("entity_f1", loss, values, scores), counts)


def _macro(scores: Sequence[LabelScore]) -> float:
    """Mean F1 over the labels that occur."""
    seen = [score.f1 for score in scores if score.support]
    return sum(seen) / len(seen) if seen else 0.0


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
