"""Metrics against sums done by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hmi.training.data import Span
from hmi.training.reports import (
    Metrics,
    evaluate_classes,
    evaluate_entities,
    evaluate_multi_label,
    evaluate_words,
    ranking_metrics,
)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_classes_are_counted_when_one_is_never_predicted() -> None:
    found = evaluate_classes(("a", "b", "c"), ints(0, 0, 0, 1, 1, 2), ints(0, 0, 1, 1, 0, 0), loss=0.5).metrics
    assert found.confusion == ((2, 1, 0), (1, 1, 0), (1, 0, 0))
    assert found.values["accuracy"] == found.score == 0.5
    a, b, c = found.labels
    assert (a.precision, a.support) == (0.5, 3)
    assert a.recall == pytest.approx(2 / 3)
    assert (b.precision, b.recall, b.f1) == (0.5, 0.5, 0.5)
    assert (c.precision, c.recall, c.f1, c.support) == (0, 0, 0, 1)
    assert found.values["macro_f1"] == pytest.approx((4 / 7 + 0.5 + 0) / 3)


def test_macro_average_ignores_labels_that_do_not_occur() -> None:
    found = evaluate_classes(("a", "b"), ints(0, 0), ints(0, 0)).metrics
    assert found.values == {"accuracy": 1.0, "macro_f1": 1.0}


def test_confusion_is_left_out_when_there_are_too_many_labels() -> None:
    labels = [str(number) for number in range(101)]
    assert evaluate_classes(labels, ints(3), ints(100)).metrics.confusion is None


def test_labels_are_counted_apart_when_several_may_be_true() -> None:
    true = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0]], bool)
    said = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 1]], bool)
    found = evaluate_multi_label(("a", "b", "c"), true, said).metrics
    assert found.values["micro_f1"] == pytest.approx(2 * 3 / (4 + 4))
    assert found.values["subset_accuracy"] == pytest.approx(1 / 3)
    assert [label.f1 for label in found.labels] == [1, 1, 0]
    assert found.confusion is None


def test_entity_is_right_when_both_ends_and_its_name_are() -> None:
    true = [[Span(0, 1, "PER"), Span(3, 3, "LOC")], [Span(0, 0, "LOC")], []]
    said = [[Span(0, 1, "PER"), Span(3, 4, "LOC")], [Span(0, 0, "PER")], [Span(2, 2, "LOC")]]
    found = evaluate_entities(("LOC", "PER"), true, said).metrics
    assert found.values["entity_precision"] == 0.25
    assert found.values["entity_recall"] == pytest.approx(1 / 3)
    assert found.score == pytest.approx(2 / 7)
    assert [(label.label, label.f1, label.support) for label in found.labels] == [
        ("LOC", 0, 2),
        ("PER", pytest.approx(2 / 3), 1),
    ]


def test_words_outside_do_not_count_when_they_are_right() -> None:
    found = evaluate_words(("O", "X", "Y"), [ints(0, 0, 0), ints(1, 2)], [ints(0, 0, 1), ints(1, 0)]).metrics
    assert found.values["accuracy"] == 0.6
    assert found.score == pytest.approx(2 * 1 / (2 + 2))


def test_ranks_become_recall_and_reciprocal_rank() -> None:
    assert ranking_metrics(ints(0, 1, 3, 0)).values == {"recall_at_1": 0.5, "mean_reciprocal_rank": 0.6875}


def test_metrics_are_the_same_after_a_json_round_trip() -> None:
    found = evaluate_classes(("a", "b"), ints(0, 1, 1), ints(0, 1, 0), loss=0.25).metrics
    assert Metrics.from_json(json.loads(json.dumps(found.to_json()))) == found
