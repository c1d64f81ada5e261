"""The served estimator against the plain network on the rows of three tokens."""

from __future__ import annotations

import pytest
import torch

from hmi.engine.stages.estimate import EstimateGroup
from hmi.errors import Corrupt
from hmi.models.layers import RowEstimator, ServedEstimator
from tests.estimators import random_estimator

HIDDEN = 32


def tokens_and_windows(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.cat([torch.zeros(1, HIDDEN), torch.randn(50, HIDDEN, generator=generator)])
    return tokens, torch.randint(0, 51, (count, 3), generator=generator)


@pytest.mark.parametrize("count", [1, 7, 2048, 5000])
def test_served_estimator_equals_the_network(count: int) -> None:
    estimator = random_estimator(HIDDEN, seed=1)
    tokens, index = tokens_and_windows(count)
    expected = estimator(tokens, index)
    served = ServedEstimator(estimator)
    torch.testing.assert_close(served(tokens, index), expected, atol=1e-5, rtol=1e-5)
    assert served.error == pytest.approx(0.25)


def test_serving_in_bfloat16_is_near_the_network_in_float32() -> None:
    tokens, index = tokens_and_windows(300)
    expected = random_estimator(HIDDEN, seed=1)(tokens, index)
    found = ServedEstimator(random_estimator(HIDDEN, seed=1).bfloat16())(tokens.bfloat16(), index)
    assert found.dtype == torch.bfloat16
    assert float((found.float() - expected).norm() / expected.norm()) < 0.01


def test_an_untrained_estimator_returns_the_tokens_own_row() -> None:
    estimator = random_estimator(HIDDEN, seed=1)
    for tensor in (estimator.outer.weight, estimator.outer.bias, estimator.linear.weight):
        tensor.zero_()
    tokens, index = tokens_and_windows(9)
    torch.testing.assert_close(ServedEstimator(estimator)(tokens, index), tokens[index[:, 1]])


def test_weights_are_the_same_after_a_round_trip() -> None:
    estimator = random_estimator(HIDDEN, seed=2)
    again = RowEstimator.of(estimator.weights())
    for name, tensor in estimator.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=0, rtol=0)
    assert not any(tensor.requires_grad for tensor in again.parameters())


@pytest.mark.parametrize("error", [float("nan"), -0.1, 1.1])
def test_an_estimator_with_an_invalid_error_is_refused(error: float) -> None:
    made = RowEstimator(4, 3)
    made.error.fill_(error)
    with pytest.raises(Corrupt, match=r"estimator\.error must lie between 0 and 1"):
        ServedEstimator(made)


def test_a_part_of_a_group_gives_its_own_rows_without_the_others() -> None:
    torch.manual_seed(0)
    codes = torch.randint(-127, 128, (6, 4), dtype=torch.int8)
    codes[0] = 0
    index = torch.tensor([[1, 2, 0], [3, 4, 5], [0, 2, 1]])
    group = EstimateGroup(
        ServedEstimator(RowEstimator(4, 3)), codes, torch.rand(6), index, torch.arange(4), torch.tensor([0, 1, 2, 0])
    )
    part = group.part(torch.tensor([7, 8]), group.sources[[0, 3]])
    assert torch.equal(part.places, torch.tensor([7, 8]))
    assert len(part.codes) == 3  # the tokens of one window, zeros among them
    with torch.inference_mode():
        torch.testing.assert_close(part.rows(torch.float32), group.rows(torch.float32)[[0, 3]])
