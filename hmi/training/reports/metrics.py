"""How well a model answers: plain counts over what is true and what was said."""

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

__all__ = [
    "LabelScore",
    "Metrics",
    "class_metrics",
    "entity_metrics",
    "language_metrics",
    "multi_label_metrics",
    "ranking_metrics",
    "word_metrics",
]

_MOST_CONFUSED = 100  # labels; a table of more is read by nobody

Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelScore:
    """Of one label: shares 0..1, and how often it is true. What was never said, or is never true, scores 0."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """What came out of judging a model on text that it was not trained on.

    Attributes:
        name: Of the figure that decides which epoch is the best; `score` is its value.
        loss: Mean loss of the judging examples.
        values: Every figure by name, that one too; shares 0..1, but for a perplexity, which is 1 or more.
        labels: In the order of the model's labels, where it has any.
        confusion: How often label `row` was answered with label `column`; None where labels do not exclude each other,
            or there are more than 100.
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
        """Ready for JSON."""
        return dataclasses.asdict(self) | {"score": self.score}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Metrics:
        """What `to_json` gave. Raises `KeyError` or `TypeError` for anything else."""
        confusion = raw["confusion"]
        return cls(
            raw["name"],
            raw["loss"],
            dict(raw["values"]),
            tuple(LabelScore(**each) for each in raw["labels"]),
            None if confusion is None else tuple(map(tuple, confusion)),
        )


def class_metrics(labels: Sequence[str], true: Indices, said: Indices, loss: float = 0.0) -> Metrics:
    """Of one label for each of n texts or words: int64 `[n]`, places in `labels`."""
    count = len(labels)
    confusion = np.bincount(true * count + said, minlength=count * count).reshape(count, count)
    scores = _scores(labels, confusion.diagonal(), confusion.sum(0), confusion.sum(1))
    values = {"accuracy": _ratio(confusion.trace(), confusion.sum()), "macro_f1": _macro(scores)}
    table = tuple(map(tuple, confusion.tolist())) if count <= _MOST_CONFUSED else None
    return Metrics("accuracy", loss, values, scores, table)


def word_metrics(labels: Sequence[str], true: Indices, said: Indices, loss: float = 0.0) -> Metrics:
    """As `class_metrics`, with the F1 over all labels together that say something: all but `O`."""
    plain = class_metrics(labels, true, said, loss)
    told = np.array([label != OUTSIDE for label in labels])
    right = (true == said) & told[true]
    f1 = _f1(right.sum(), told[said].sum(), told[true].sum())
    return dataclasses.replace(plain, name="token_f1", values={**plain.values, "token_f1": f1})


def multi_label_metrics(labels: Sequence[str], true: Flags, said: Flags, loss: float = 0.0) -> Metrics:
    """Of any number of labels for each text: bool `[n, labels]`. `subset_accuracy`: of texts with all labels right."""
    right, said_count, support = (true & said).sum(0), said.sum(0), true.sum(0)
    scores = _scores(labels, right, said_count, support)
    values = {
        "micro_f1": _f1(right.sum(), said_count.sum(), support.sum()),
        "macro_f1": _macro(scores),
        "subset_accuracy": float((true == said).all(1).mean()),
    }
    return Metrics("micro_f1", loss, values, scores)


def entity_metrics(
    labels: Sequence[str], true: Sequence[Sequence[Span]], said: Sequence[Sequence[Span]], loss: float = 0.0
) -> Metrics:
    """Of the named parts of each text; one is right where both ends and the label are (Tjong Kim Sang, CoNLL-2003)."""
    pairs = [(set(these), set(those)) for these, those in zip(true, said, strict=True)]

    def count(of: Callable[[set[Span], set[Span]], set[Span]]) -> Indices:
        found = Counter(span.label for these, those in pairs for span in of(these, those))
        return np.array([found[label] for label in labels], np.int64)

    right = count(lambda these, those: these & those)
    said_count, support = count(lambda these, those: those), count(lambda these, those: these)
    scores = _scores(labels, right, said_count, support)
    values = {
        "entity_f1": _f1(right.sum(), said_count.sum(), support.sum()),
        "entity_precision": _ratio(right.sum(), said_count.sum()),
        "entity_recall": _ratio(right.sum(), support.sum()),
        "macro_f1": _macro(scores),
    }
    return Metrics("entity_f1", loss, values, scores)


def ranking_metrics(ranks: Indices, loss: float = 0.0) -> Metrics:
    """Of where the text that belongs to each asking one came among all candidates: int64 `[n]`, 0 the first."""
    values = {"recall_at_1": float((ranks == 0).mean()), "mean_reciprocal_rank": float((1 / (ranks + 1)).mean())}
    return Metrics("recall_at_1", loss, values)


def language_metrics(loss: float, right: int, tokens: int) -> Metrics:
    """Of how texts went on: `loss` is the mean over the tokens, in nats. `token_likelihood` is the geometric mean of
    their probabilities, one over the perplexity."""
    values = {
        "token_likelihood": math.exp(-loss),
        "token_accuracy": _ratio(right, tokens),
        "perplexity": math.exp(min(loss, 700.0)),
    }
    return Metrics("token_likelihood", loss, values)


def _scores(labels: Sequence[str], right: Indices, said: Indices, support: Indices) -> tuple[LabelScore, ...]:
    return tuple(
        LabelScore(label, _ratio(r, s), _ratio(r, t), _f1(r, s, t), int(t))
        for label, r, s, t in zip(labels, right, said, support, strict=True)
    )


def _macro(scores: Sequence[LabelScore]) -> float:
    """Over the labels that are true of anything."""
    seen = [score.f1 for score in scores if score.support]
    return sum(seen) / len(seen) if seen else 0.0


def _f1(right: float, said: float, support: float) -> float:
    return _ratio(2 * right, said + support)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
