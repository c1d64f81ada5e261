"""The benchmark of inheritance on a tiny model, and its statistics on answers made up for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks.inheritance.choice import Loss, choose, lost
from benchmarks.inheritance.learning import Learner
from benchmarks.inheritance.measure import measure
from benchmarks.inheritance.plan import QUICK, UNLIMITED, domain_texts
from benchmarks.inheritance.report import as_text, make_report
from examples.demo import Sentence
from hmi.training.distill import build_base
from tests.tiny import tiny_bert_folder

PLAN = dataclasses.replace(
    QUICK, k=2, general_steps=2, domain_steps=6, seeds=2, tolerances=(0, 0.02, 0.3, UNLIMITED), most_training=24
)


def sentences(count: int, words: range) -> list[Sentence]:
    rng = np.random.default_rng(words.start)
    drawn = (rng.choice(words, 5) for _ in range(count))
    return [
        Sentence(" ".join(f"w{word}" for word in each), ("positive", "negative")[number % 2])
        for number, each in enumerate(drawn)
    ]


def test_table_holds_every_tolerance_when_a_tiny_plan_is_run(tmp_path: Path) -> None:
    text = {"one": sentences(90, range(10)), "two": sentences(90, range(5, 15))}
    source = tiny_bert_folder(tmp_path / "source")
    build_base(source, tmp_path / "kept" / "base", 2, corpora=[[each.text for each in text["one"]]])
    said: list[str] = []
    learner = Learner(tmp_path / "kept", PLAN, domain_texts(text, PLAN), "cpu", "float32", said.append)
    files = learner.learn()
    assert len(files) == 3 + 2 * 2 * PLAN.seeds
    again = len(said)
    assert learner.learn() == files  # kept: nothing is made twice
    assert len(said) == again
    report = make_report(measure(learner, files, said.append))
    cases = report["tolerances"]
    assert [case["tolerance"] for case in cases] == list(PLAN.tolerances)
    exact, *_, unlimited = cases
    assert (exact["marks"], exact["saved"], exact["lost"]["high"]) == (0, 0, 0)
    assert exact["error"] < 1e-6
    assert unlimited["entries"] == 0
    assert unlimited["saved"] > 0.5
    assert [case["marks"] for case in cases] == sorted(case["marks"] for case in cases)
    assert [case["error"] for case in cases] == sorted(case["error"] for case in cases)
    assert all(case["marks"] + case["entries"] == exact["entries"] for case in cases)
    assert as_text(report).count("\n") > len(cases)


def test_loss_is_the_mean_of_domains_when_they_differ_in_size() -> None:
    before = {"small": np.ones((1, 10), bool), "large": np.ones((1, 1000), bool)}
    after = {"small": np.arange(10)[None] >= 2, "large": np.ones((1, 1000), bool)}
    loss = lost(before, after)
    assert loss.mean == pytest.approx(0.1)
    assert loss.high - loss.mean == pytest.approx(1.96 * np.sqrt(0.2 * 0.8 / 9) / 2)
    assert loss.mean - loss.low == pytest.approx(loss.high - loss.mean)


def test_interval_does_not_shrink_when_tenants_answer_alike() -> None:
    """The same sentences asked of tenants who agree are no more evidence than one tenant's."""
    before, after = np.ones((1, 50), bool), np.arange(50)[None] >= 5
    one = lost({"movies": before}, {"movies": after})
    three = lost({"movies": before.repeat(3, 0)}, {"movies": after.repeat(3, 0)})
    assert dataclasses.astuple(three) == pytest.approx(dataclasses.astuple(one))


def test_nothing_is_lost_for_certain_when_answers_stay() -> None:
    right = {"movies": np.arange(40).reshape(2, 20) % 3 > 0}
    assert lost(right, right) == Loss(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("highs", "changed", "expected"),
    [
        ((0, 0.001, 0.004, 0.02), (0, 0.001, 0.005, 0.1), 0.1),
        ((0, 0.001, 0.006, 0.02), (0, 0.001, 0.002, 0.1), 0.05),
        ((0, 0.001, 0.002, 0.02), (0, 0.001, 0.006, 0.1), 0.05),
        ((0, 0.006, 0.001, 0.001), (0, 0.001, 0.001, 0.001), 0),  # a better one further on is luck
        ((0, 0.001, 0.002, 0.003), (0, 0.001, 0.001, 0.001), 0.1),  # no limit is no tolerance
    ],
)
def test_default_is_the_last_tolerance_before_too_much_is_lost(
    highs: tuple[float, ...], changed: tuple[float, ...], expected: float
) -> None:
    losses = [Loss(0, 0, high) for high in highs]
    assert choose((0, 0.05, 0.1, UNLIMITED), losses, changed) == expected
