"""Figures without one text each, and the errors made of them, against counting anew."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hmi.training.data import Span
from hmi.training.reports import (
    AnswerCounts,
    Evaluation,
    Metrics,
    class_counts,
    class_metrics,
    compare_evaluations,
    entity_counts,
    entity_metrics,
    multi_label_counts,
    multi_label_metrics,
    word_counts,
    word_metrics,
)

LABELS = ("O", "a", "b", "c")
TEXTS = 23


def classes(seed: int) -> tuple[AnswerCounts, Callable[[list[int]], Metrics]]:
    rng = np.random.default_rng(seed)
    true, said = rng.integers(0, 3, (2, TEXTS))
    true[4] = 3  # a label of one text alone
    return class_counts(LABELS, true, said), lambda kept: class_metrics(LABELS, true[kept], said[kept])


def several(seed: int) -> tuple[AnswerCounts, Callable[[list[int]], Metrics]]:
    rng = np.random.default_rng(seed)
    true, said = rng.random((2, TEXTS, 4)) < 0.3
    return multi_label_counts(true, said), lambda kept: multi_label_metrics(LABELS, true[kept], said[kept])


def words(seed: int) -> tuple[AnswerCounts, Callable[[list[int]], Metrics]]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 5, TEXTS)
    true, said = ([rng.integers(0, 4, length) for length in lengths] for _ in range(2))

    def judged(kept: list[int]) -> Metrics:
        return word_metrics(
            LABELS, np.concatenate([true[text] for text in kept]), np.concatenate([said[text] for text in kept])
        )

    return word_counts(LABELS, true, said), judged


def parts(seed: int) -> tuple[AnswerCounts, Callable[[list[int]], Metrics]]:
    rng = np.random.default_rng(seed)
    names = LABELS[1:]

    def spans() -> list[list[Span]]:
        return [
            [Span(2 * place, 2 * place + 1, str(rng.choice(names))) for place in range(3) if rng.random() < 0.6]
            for _ in range(TEXTS)
        ]

    true, said = spans(), spans()
    return (
        entity_counts(names, true, said),
        lambda kept: entity_metrics(names, [true[text] for text in kept], [said[text] for text in kept]),
    )


@pytest.mark.parametrize("task", [classes, several, words, parts])
def test_figures_without_a_text_are_those_of_all_others(
    task: Callable[[int], tuple[AnswerCounts, Callable[[list[int]], Metrics]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tally, judged = task(1)
    monkeypatch.setattr("hmi.training.reports.answer_counts._CELLS", 20)  # a few texts at once
    scores, macros = tally.without_each()
    assert len(scores) == len(macros) == len(tally) == TEXTS
    for text in range(TEXTS):
        expected = judged([other for other in range(TEXTS) if other != text])
        assert scores[text] == pytest.approx(expected.score)
        assert macros[text] == pytest.approx(expected.values["macro_f1"])


def test_error_of_accuracy_is_that_of_paired_answers() -> None:
    (one, judged), (other, judged_other) = classes(1), classes(2)
    everything = list(range(TEXTS))
    found = compare_evaluations(Evaluation(judged(everything), one), Evaluation(judged_other(everything), other))
    pairs = one.right.sum(1) - other.right.sum(1)
    assert found.score.points == pytest.approx(100 * pairs.mean())
    assert found.score.standard_error == pytest.approx(100 * pairs.std(ddof=1) / np.sqrt(TEXTS))
    assert found.macro_f1.standard_error > 0


def test_nothing_differs_when_a_model_is_compared_with_itself() -> None:
    tally, judged = parts(3)
    same = Evaluation(judged(list(range(TEXTS))), tally)
    found = compare_evaluations(same, same)
    assert found.score.points == found.score.standard_error == found.macro_f1.standard_error == 0
