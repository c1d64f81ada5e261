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

from hmi.engine.generation.sampling import choose_tokens, most_likely
from hmi.engine.request import Sampling
from hmi.errors import InvalidInput

VOCABULARY = 50


def some_logits(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2


def expected_distribution(logits: Tensor, wish: Sampling) -> Tensor:
    """As transformers cuts: top k, then top p of what the temperature gives."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(wish.temperature)])
    if wish.top_k:
        warpers.append(TopKLogitsWarper(wish.top_k))
    if wish.top_p < 1:
        warpers.append(TopPLogitsWarper(wish.top_p))
    none: Any = torch.zeros(1, 1, dtype=torch.int64)
    given: Any = logits[None]
    scores: Tensor = warpers(none, given)
    return scores.softmax(-1)[0]


@pytest.mark.parametrize(
    "wish",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(temperature=1.7, top_k=7),
        Sampling(top_p=0.8),
        Sampling(temperature=1.3, top_k=20, top_p=0.6),
        Sampling(top_k=1),
        Sampling(top_p=1e-9),
    ],
)
def test_draws_have_the_distribution_that_transformers_cuts_out(wish: Sampling) -> None:
    logits, draws = some_logits(1, 3)[0], 20_000
    ids = choose_tokens(logits.expand(draws, -1), [wish] * draws, range(draws)).ids
    found = torch.bincount(ids, minlength=VOCABULARY) / draws
    expected = expected_distribution(logits, wish)
    assert not found[expected == 0].any()
    assert float((found - expected).abs().max()) < 4 * (0.25 / draws) ** 0.5  # four standard deviations at most


def test_most_likely_token_is_taken_when_there_is_no_temperature() -> None:
    logits = some_logits(6)
    chosen = choose_tokens(logits, [Sampling(temperature=0)] * 6, [0] * 6)
    assert chosen.ids.tolist() == logits.argmax(-1).tolist()
    torch.testing.assert_close(chosen.logprobs, logits.log_softmax(-1).max(-1).values)


@settings(max_examples=30)
@given(st.permutations(range(8)), st.integers(1, 8))
def test_draw_is_the_same_whoever_is_beside(order: list[int], beside: int) -> None:
    logits = some_logits(8, 1)
    wishes = [Sampling(temperature=(row % 3) * 0.7, top_k=row % 4, top_p=1 - row / 10, seed=row) for row in range(8)]
    drawn = [3 * row for row in range(8)]
    alone = [choose_tokens(logits[row : row + 1], [wishes[row]], [drawn[row]]).ids.item() for row in range(8)]
    some = order[:beside]
    found = choose_tokens(logits[some], [wishes[row] for row in some], [drawn[row] for row in some])
    assert found.ids.tolist() == [alone[row] for row in some]


def test_draws_differ_by_seed_and_by_place() -> None:
    chances = [Sampling(seed=seed).chance(drawn) for seed in range(20) for drawn in range(20)]
    assert len(set(chances)) == 400
    assert 0.4 < float(np.mean(chances)) < 0.6


def test_alternatives_come_with_the_models_own_probabilities() -> None:
    logits = some_logits(2)
    ids, logprobs = most_likely(logits, 3)
    expected = logits.log_softmax(-1).topk(3, -1)
    assert ids.tolist() == expected.indices.tolist()
    torch.testing.assert_close(logprobs, expected.values)


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -0.1), ("temperature", float("nan")), ("top_k", -1), ("top_p", 0), ("top_p", 1.1)],
)
def test_wish_is_refused_by_name_when_it_makes_no_sense(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=field) as caught:
        Sampling(**{field: value})
    assert caught.value.param == field
