"""A decoder's perplexity and divergence against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from hmi.training.distill.fidelity import PerplexitySums

WORDS, SIZE = 7, 5


@pytest.fixture
def heads() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(WORDS, SIZE), torch.randn(WORDS, SIZE)


def test_sums_are_those_of_a_plain_loop_over_tokens(heads: tuple[torch.Tensor, torch.Tensor]) -> None:
    ids, mask = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    ours, theirs = torch.randn(2, 4, SIZE), torch.randn(2, 4, SIZE)
    sums = PerplexitySums()
    for row in range(2):  # in two batches
        some = slice(row, row + 1)
        one, other = (lambda x, h=head: F.linear(x, h) for head in heads)
        sums.add(one, ours[some], other, theirs[some], ids[some], mask[some])
    found = sums.result()
    assert found is not None
    losses, originals, divergences, agreed = [], [], [], []
    for row, place in ((0, 0), (0, 1), (0, 2), (1, 0)):  # the tokens that another one follows
        p = F.linear(ours[row, place], heads[0]).softmax(-1)
        q = F.linear(theirs[row, place], heads[1]).softmax(-1)
        losses.append(-math.log(p[ids[row, place + 1]]))
        originals.append(-math.log(q[ids[row, place + 1]]))
        divergences.append(float((q * (q / p).log()).sum()))
        agreed.append(float(p.argmax() == q.argmax()))
    assert found.perplexity == pytest.approx(math.exp(sum(losses) / 4), rel=1e-5)
    assert found.original == pytest.approx(math.exp(sum(originals) / 4), rel=1e-5)
    assert found.divergence == pytest.approx(sum(divergences) / 4, rel=1e-5)
    assert found.agreement == sum(agreed) / 4


def test_texts_of_one_token_have_no_perplexity(heads: tuple[torch.Tensor, torch.Tensor]) -> None:
    sums = PerplexitySums()
    states = torch.randn(1, 1, SIZE)
    sums.add(lambda x: F.linear(x, heads[0]), states, lambda x: F.linear(x, heads[1]), states, *_one_token())
    assert sums.result() is None


def _one_token() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[3]]), torch.tensor([[True]])
