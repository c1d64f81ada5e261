"""Scores without one text each, and the standard errors from them, against evaluating the other texts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hmi.training.data import Span
from hmi.training.reports import (
    Evaluation,
    compare_evaluations,
    evaluate_classes,
    evaluate_entities,
    evaluate_multi_label,
    evaluate_words,
)

LABELS = ("O", "a", "b", "c")
TEXTS = 23
EVERYTHING = list(range(TEXTS))


Evaluate = Callable[[list[int]], Evaluation]  # of some of the texts


def classes(seed: int) -> Evaluate:
    rng = np.random.default_rng(seed)
    true, said = rng.integers(0, 3, (2, TEXTS))
    true[4] = 3  # a label of one text alone
    return lambda kept: evaluate_classes(LABELS, true[kept], said[kept])


def several(seed: int) -> Evaluate:
    rng = np.random.default_rng(seed)
    true, said = rng.random((2, TEXTS, 4)) < 0.3
    return lambda kept: evaluate_multi_label(LABELS, true[kept], said[kept])


def words(seed: int) -> Evaluate:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 5, TEXTS)
    true, said = ([rng.integers(0, 4, length) for length in lengths] for _ in range(2))
    return lambda kept: evaluate_words(LABELS, [true[text] for text in kept], [said[text] for text in kept])


def entities(seed: int) -> Evaluate:
    rng = np.random.default_rng(seed)
    names = LABELS[1:]

    def spans() -> list[list[Span]]:
        return [
            [Span(2 * place, 2 * place + 1, str(rng.choice(names))) for place in range(3) if rng.random() < 0.6]
            for _ in range(TEXTS)
        ]

    true, said = spans(), spans()
    return lambda kept: evaluate_entities(names, [true[text] for text in kept], [said[text] for text in kept])


@pytest.mark.parametrize("task", [classes, several, words, entities])
def test_scores_without_a_text_are_those_of_all_others(
    task: Callable[[int], Evaluate], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = task(1)
    counts = evaluate(EVERYTHING).counts
    monkeypatch.setattr("hmi.training.reports.evaluation._CELLS", 20)  # a few texts at once
    scores, macros = counts.without_each()
    assert len(scores) == len(macros) == len(counts) == TEXTS
    for text in range(TEXTS):
        expected = evaluate([other for other in EVERYTHING if other != text]).metrics
        assert scores[text] == pytest.approx(expected.score)
        assert macros[text] == pytest.approx(expected.values["macro_f1"])


def test_error_of_accuracy_is_that_of_paired_answers() -> None:
    one, other = classes(1)(EVERYTHING), classes(2)(EVERYTHING)
    found = compare_evaluations(one, other)
    pairs = one.counts.right.sum(1) - other.counts.right.sum(1)
    assert found.score.points == pytest.approx(100 * pairs.mean())
    assert found.score.standard_error == pytest.approx(100 * pairs.std(ddof=1) / np.sqrt(TEXTS))
    assert found.macro_f1.standard_error > 0


def test_score_delta_is_zero_when_a_model_is_compared_with_itself() -> None:
    same = entities(3)(EVERYTHING)
    found = compare_evaluations(same, same)
    assert found.score.points == found.score.standard_error == found.macro_f1.standard_error == 0
