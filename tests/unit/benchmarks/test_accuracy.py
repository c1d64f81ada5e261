"""The benchmark of accuracy on a tiny model, and its statistics on answers made up for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import learning
from benchmarks.accuracy.__main__ import _measure, majority, tf_idf
from benchmarks.accuracy.asking import Asked, ask
from benchmarks.accuracy.learning import Job, Learner
from benchmarks.accuracy.plan import QUICK, DomainText, System, domain_texts
from benchmarks.accuracy.report import as_text, k_report, score
from examples.data import Part, Sentence
from tests.tiny import tiny_bert_folder

PLAN = dataclasses.replace(QUICK, ks=(2,), seeds=2, rank=4, delta_steps=2, most_training=24, most_test=16)


def sentences(count: int, words: range) -> list[Sentence]:
    rng = np.random.default_rng(words.start)
    drawn = (rng.choice(words, 5) for _ in range(count))
    return [
        Sentence(" ".join(f"w{word}" for word in each), ("positive", "negative")[number % 2])
        for number, each in enumerate(drawn)
    ]


@pytest.fixture
def learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Learner:
    source = tiny_bert_folder(tmp_path / "source")
    monkeypatch.setattr(learning, "find_pretrained", lambda: source)
    text = {"one": sentences(90, range(10)), "two": sentences(90, range(5, 15))}
    texts = domain_texts(text, PLAN)
    return Learner(tmp_path / "kept", tmp_path / "cache", PLAN, texts, "cpu", "float32", lambda line: None)


def test_table_holds_every_system_when_a_tiny_plan_is_run(learner: Learner) -> None:
    learner.learn()
    made = {path: path.stat().st_mtime_ns for path in learner.folder.iterdir()}
    learner.learn()
    assert {path: path.stat().st_mtime_ns for path in learner.folder.iterdir()} == made  # nothing is made twice
    report = _measure(learner, "test")
    part = report["k"]["2"]
    assert set(part["domains"]["one"]) == {*System, "hit_rate"}
    assert 0 < part["domains"]["one"]["hit_rate"] < 1
    assert part["mean_gap_exact"] == part["gaps"]["carried_exact"]["mean"]
    assert set(part["speed"]) == {"k = 0", "exact", "backoff", "exact, all held"}
    assert part["speed"]["exact, all held"]["hit_rate"] == 1
    text = as_text(report)
    assert all(system in text for system in System)


def test_full_model_above_k_has_no_adapters_below(learner: Learner) -> None:
    learner.learn()
    asked = ask(learner, 2, (System.UPPER,))
    assert {job.system for job in asked.answers} == {System.UPPER}
    assert asked.tree_bytes == 0


def test_score_counts_right_answers_and_weighs_labels_alike() -> None:
    truth = ["a"] * 8 + ["b"] * 2
    found = score([np.array(["a"] * 10), np.array(truth)], truth)
    assert found.accuracy == 90
    assert found.macro_f1 == pytest.approx(100 * (8 * 2 / 18 / 2 + 1) / 2, abs=0.01)
    per_sentence = np.array([1.0] * 8 + [0.5] * 2).std(ddof=1) / np.sqrt(10)
    per_seed = np.array([0.8, 1.0]).std(ddof=1) / np.sqrt(2)
    assert found.se == pytest.approx(100 * np.hypot(per_sentence, per_seed), abs=0.01)


def test_gap_is_of_the_same_sentences_and_the_mean_of_domains() -> None:
    texts = {
        name: DomainText((), tuple(Sentence(f"{name} {n}", "a") for n in range(size)))
        for name, size in (("small", 4), ("large", 100))
    }
    right = {name: np.array(["a"] * len(text.asked)) for name, text in texts.items()}
    wrong = {"small": np.array(["b", "a", "a", "a"]), "large": right["large"]}
    full = {Job(System.FULL, 0, name, 0): answers for name, answers in right.items()}
    others = [system for system in System if system is not System.FULL]
    asked: dict[System, Asked] = {
        system: Asked({Job(system, 3, name, 0): answers for name, answers in wrong.items()}, {}, 0) for system in others
    }
    report = k_report(full, asked, texts, {})
    assert report["mean_gap_exact"] == 12.5
    assert report["gaps"]["exact"] == {"small": 25.0, "large": 0.0, "mean": 12.5, "se": 12.5, "worst": 25.0}


def test_baselines_learn_from_the_training_part_alone() -> None:
    words = (("good", "p"), ("bad", "n"))
    training = [Sentence(f"{word} thing {n}", label) for n in range(6) for word, label in words]
    asked = (Sentence("a bad one", "n"), Sentence("a good one", "p"))
    text = DomainText((*training, Sentence("good again", "p")), asked)
    assert majority(text).tolist() == ["p", "p"]
    assert tf_idf(text).tolist() == ["n", "p"]


def test_parts_are_those_of_the_split() -> None:
    text = {"one": sentences(300, range(90))}
    dev, test = domain_texts(text, QUICK, Part.DEV)["one"], domain_texts(text, QUICK)["one"]
    assert {each.part for each in dev.asked} == {Part.DEV}
    assert {each.part for each in test.asked} == {Part.TEST}
    assert {each.part for each in test.training} == {Part.TRAIN}
