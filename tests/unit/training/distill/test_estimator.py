"""A small network learns the rows of n-grams from those of their tokens."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hmi.errors import InvalidInput
from hmi.knowledge import window_keys
from hmi.models.convert import convert_pretrained
from hmi.models.families import HBert, load_hbert
from hmi.models.layers import RowEstimator
from hmi.training.distill import EstimatorConfig, fit_estimator
from hmi.training.lower import window_rows
from hmi.training.lower.states import estimated_rows
from hmi.training.reports import TrainProgress
from tests.estimators import random_estimator
from tests.tiny import tiny_bert_folder

QUICK = EstimatorConfig(size=32, steps=150, batch_size=64, learning_rate=1e-2)


def sentences(count: int, seed: int) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return [np.array([2, *rng.integers(5, 30, rng.integers(2, 9)), 3]) for _ in range(count)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HBert:
    folder = tmp_path_factory.mktemp("base")
    convert_pretrained(tiny_bert_folder(folder / "source"), folder / "k2", k=2)
    return load_hbert(folder / "k2")


@pytest.fixture(scope="module")
def fitted(model: HBert) -> RowEstimator:
    return fit_estimator(model, sentences(200, 1), sentences(30, 2), QUICK)


def keys_of(some: list[NDArray[np.int64]]) -> NDArray[np.uint64]:
    return np.unique(window_keys(np.concatenate(some), np.array([len(ids) for ids in some])))


def mean_error(model: HBert, estimator: RowEstimator, keys: NDArray[np.uint64]) -> float:
    rows = window_rows(model, keys)
    estimates = estimated_rows(model, estimator, keys)
    return float(((estimates - rows).norm(dim=1) / rows.norm(dim=1)).mean())


def test_estimates_are_nearer_than_the_tokens_own_rows(model: HBert, fitted: RowEstimator) -> None:
    unknown = np.setdiff1d(keys_of(sentences(30, 2)), keys_of(sentences(200, 1)))
    nothing = random_estimator(32, seed=0)
    for tensor in nothing.parameters():
        tensor.zero_()
    assert mean_error(model, fitted, unknown) < 0.6 * mean_error(model, nothing, unknown)


def test_estimate_error_is_that_of_windows_that_were_not_learnt(model: HBert, fitted: RowEstimator) -> None:
    unknown = np.setdiff1d(keys_of(sentences(30, 2)), keys_of(sentences(200, 1)))
    assert float(fitted.error) == pytest.approx(mean_error(model, fitted, unknown), rel=1e-4)


def test_start_estimator_is_unchanged_without_learning(model: HBert) -> None:
    """Centring and its undoing cancel."""
    start = random_estimator(32, seed=3)
    config = dataclasses.replace(QUICK, steps=1, learning_rate=0.0)
    same = fit_estimator(model, sentences(20, 1), sentences(5, 2), config, start=start)
    keys = keys_of(sentences(20, 4))
    torch.testing.assert_close(
        estimated_rows(model, same, keys), estimated_rows(model, start, keys), atol=1e-5, rtol=1e-4
    )


def test_start_estimator_shortens_training(model: HBert, fitted: RowEstimator) -> None:
    config = dataclasses.replace(QUICK, steps=20)
    again = fit_estimator(model, sentences(200, 1), sentences(30, 2), config, start=fitted)
    fresh = fit_estimator(model, sentences(200, 1), sentences(30, 2), config)
    assert float(again.error) < float(fresh.error)


def test_the_same_seed_gives_the_same_weights(model: HBert) -> None:
    config = dataclasses.replace(QUICK, steps=5, most_windows=50)
    one, other, third = (
        fit_estimator(model, sentences(40, 1), sentences(5, 2), dataclasses.replace(config, seed=seed)).state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], third[name]) for name in one)


def test_progress_ends_with_the_last_step(model: HBert) -> None:
    reported: list[TrainProgress] = []
    config = dataclasses.replace(QUICK, steps=60)
    fit_estimator(model, sentences(40, 1), sentences(5, 2), config, on_progress=reported.append)
    assert [each.done for each in reported] == [50, 60]
    assert reported[-1].seconds_left == 0


def test_held_out_text_may_have_no_unknown_window(model: HBert) -> None:
    made = fit_estimator(model, sentences(20, 1), sentences(20, 1), dataclasses.replace(QUICK, steps=1))
    assert 0 < float(made.error) <= 1


@pytest.mark.parametrize("name", ["size", "steps", "batch_size", "most_windows"])
def test_config_is_refused_when_a_number_is_out_of_range(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        EstimatorConfig(**{name: 0})
    assert caught.value.param == name
