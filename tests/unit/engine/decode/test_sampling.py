"""Draws against transformers' own cuts, and against the distribution that they are of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from hmi.engine.decode.sampling import best_tokens, choose_tokens
from hmi.errors import InvalidInput
from hmi.items import Sampling

VOCABULARY = 50


def some_logits(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2


def expected_distribution(logits: Tensor, params: Sampling) -> Tensor:
    """As transformers cuts: top k, then top p of what the temperature gives."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(TopPLogitsWarper(params.top_p))
    none: Any = torch.zeros(1, 1, dtype=torch.int64)
    given: Any = logits[None]
    scores: Tensor = warpers(none, given)
    return scores.softmax(-1)[0]


@pytest.mark.parametrize(
    "params",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(temperature=1.7, top_k=7),
        Sampling(top_p=0.8),
        Sampling(temperature=1.3, top_k=20, top_p=0.6),
        Sampling(top_k=1),
        Sampling(top_p=5e-324),
    ],
)
def test_draws_have_the_distribution_that_transformers_cuts_out(params: Sampling) -> None:
    logits, draws = some_logits(1, 3)[0], 20_000
    ids = choose_tokens(logits.expand(draws, -1), [params] * draws, range(draws)).ids
    found = torch.bincount(ids, minlength=VOCABULARY) / draws
    expected = expected_distribution(logits, params)
    assert not found[expected == 0].any()
    assert float((found - expected).abs().max()) < 4 * (0.25 / draws) ** 0.5  # four standard deviations at most


@pytest.mark.parametrize("params", [Sampling(), Sampling(top_k=1500), Sampling(top_p=0.3), Sampling(top_p=0.97)])
def test_draws_from_a_large_vocabulary_have_that_distribution_too(params: Sampling) -> None:
    """Of which top p keeps more, or fewer, than are sorted first."""
    logits, draws, bins = torch.randn(5000, generator=torch.Generator().manual_seed(1)), 3000, 40
    expected = expected_distribution(logits, params)
    ids = torch.cat(
        [choose_tokens(logits.expand(500, -1), [params] * 500, range(n, n + 500)).ids for n in range(0, draws, 500)]
    )
    assert bool((expected[ids] > 0).all())
    found = torch.bincount(ids % bins, minlength=bins) / draws
    together = torch.zeros(bins).index_add_(0, torch.arange(5000) % bins, expected)
    assert float((found - together).abs().max()) < 4 * float(together.max() / draws) ** 0.5


def test_of_equal_logits_those_with_lower_ids_are_kept() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, -1.0, 2.0, 2.0, 3.0]]).expand(400, -1)
    for params, kept in ((Sampling(top_k=4), {1, 7, 2, 3}), (Sampling(top_p=0.6), {1, 7, 2}), (Sampling(top_k=1), {1})):
        found = choose_tokens(logits, [params] * 400, range(400)).ids
        assert set(found.tolist()) == kept


@pytest.mark.parametrize("params", [Sampling(), Sampling(top_k=30), Sampling(top_k=30, top_p=0.5), Sampling(top_p=0.3)])
def test_a_vocabulary_is_sorted_only_where_that_decides(params: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("all of it was sorted")

    monkeypatch.setattr(torch, "sort", refuse)
    choose_tokens(some_logits(3).repeat(1, 100), [Sampling(temperature=0), Sampling(), params], [0, 1, 2])


@pytest.mark.parametrize("params", [Sampling(), Sampling(top_k=3), Sampling(top_p=0.99)])
def test_an_impossible_token_is_never_drawn(params: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the lowest draw and by the highest."""
    logits = torch.full((1, 700), -1e4)
    logits[0, [300, 400]] = 1.0
    found = []
    for draw in (0.0, 1 - 2**-53):
        monkeypatch.setattr(Sampling, "draw", lambda *_, draw=draw: draw)
        found.append(choose_tokens(logits, [params], [0]).ids.item())
    assert found == [300, 400]


def test_the_most_likely_token_is_taken_when_there_is_no_temperature() -> None:
    logits = some_logits(6)
    chosen = choose_tokens(logits, [Sampling(temperature=0)] * 6, [0] * 6)
    assert chosen.ids.tolist() == logits.argmax(-1).tolist()
    torch.testing.assert_close(chosen.logprobs, logits.log_softmax(-1).max(-1).values)


PARAMETERS = [
    Sampling(temperature=(row % 4) * 0.6, top_k=(0, 3, 0, 40, 5)[row % 5], top_p=(1.0, 0.8, 0.99)[row % 3], seed=row)
    for row in range(24)
]  # every kind of cut, and none


@settings(max_examples=30)
@given(st.permutations(range(24)), st.integers(1, 24))
def test_a_draw_is_the_same_with_any_batch_mates(order: list[int], beside: int) -> None:
    logits = torch.randn(24, 1999, generator=torch.Generator().manual_seed(1)).bfloat16()  # many are equal
    drawn = [3 * row for row in range(24)]
    alone = [choose_tokens(logits[row : row + 1], [PARAMETERS[row]], [drawn[row]]).ids.item() for row in range(24)]
    some = order[:beside]
    found = choose_tokens(logits[some], [PARAMETERS[row] for row in some], [drawn[row] for row in some])
    assert found.ids.tolist() == [alone[row] for row in some]


def test_draws_differ_by_seed_and_by_place() -> None:
    chances = [Sampling(seed=seed).draw(drawn) for seed in range(20) for drawn in range(20)]
    assert len(set(chances)) == 400
    assert 0.4 < float(np.mean(chances)) < 0.6


def test_alternatives_come_with_the_models_own_probabilities() -> None:
    logits = some_logits(2)
    ids, logprobs = best_tokens(logits, 3)
    expected = logits.log_softmax(-1).topk(3, -1)
    assert ids.tolist() == expected.indices.tolist()
    torch.testing.assert_close(torch.from_numpy(logprobs), expected.values)


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -0.1), ("temperature", float("nan")), ("top_k", -1), ("top_p", 0), ("top_p", 1.1)],
)
def test_a_parameter_is_refused_by_name_when_it_is_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=field) as caught:
        Sampling(**{field: value})
    assert caught.value.param == field
