"""Each row's own head in a batch against that head alone, computed by `apply_head`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hmi.adapters import Activation, Adapter, Head, Pooling, Transform
from hmi.adapters.maths import HeadPlan, HeadTensors, apply_head, mean_pool
from hmi.adapters.tiers import DeviceTier, Resident, pack_adapter
from tests.adapter_samples import head, head_adapter, lora_adapter

HIDDEN = 32
TOKENS = 7


def _heads() -> list[Head]:
    """Every pooling, transform and activation; labels from 2 to more than the arena is wide, twice for some."""
    rng = np.random.default_rng(11)
    dense = [
        head(rng, labels, transform=transform, own_dense=True, activation=activation)
        for labels, transform, activation in [
            (2, Transform.DENSE, Activation.TANH),
            (7, Transform.DENSE, Activation.TANH),
            (3, Transform.DENSE, Activation.RELU),
            (3, Transform.POOLER_DENSE, Activation.TANH),
            (40, Transform.POOLER_DENSE, Activation.GELU),
            (5, Transform.POOLER, Activation.TANH),
            (2, Transform.DENSE, Activation.IDENTITY),
            (2, Transform.DENSE, Activation.SWISH),
        ]
    ]
    return [
        head(rng, 2),
        head(rng, 2),
        head(rng, 70),
        head(rng, 3, transform=Transform.POOLER),
        head(rng, 1, transform=Transform.POOLER, multi_label=True),
        *dense,
        head(rng, 3, pooling=Pooling.MEAN),
        head(rng, 33, pooling=Pooling.MEAN, transform=Transform.DENSE, own_dense=True, activation=Activation.TANH),
    ]


HEADS = _heads()
FIRST_TOKEN = [number for number, own in enumerate(HEADS) if own.pooling is Pooling.CLS]
WEIGHT = torch.randn(HIDDEN, HIDDEN, generator=torch.Generator().manual_seed(1)) * 0.3


def _pooler(first: Tensor) -> Tensor:
    return torch.tanh(first @ WEIGHT.to(first.dtype))


def _tier(dtype: torch.dtype = torch.float32) -> DeviceTier:
    return DeviceTier(HIDDEN, 8 * 1024**2, "cpu", dtype)


def _residents(tier: DeviceTier, chosen: Sequence[int | None]) -> list[Resident | None]:
    """-1 is an adapter without a head."""
    headless = lora_adapter(np.random.default_rng(0), 4)

    def resident(number: int) -> Resident:
        adapter: Adapter = headless if number < 0 else head_adapter(HEADS[number])
        return tier.pin(f"{number}") or tier.insert_pinned(f"{number}", pack_adapter(adapter, HIDDEN, tier.arena.dtype))

    return [None if number is None else resident(number) for number in chosen]


def _inputs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, TOKENS + 1, (count,), generator=generator)
    return torch.randn(count, TOKENS, HIDDEN, generator=generator), torch.arange(TOKENS) < lengths[:, None]


def _expected(number: int | None, hidden: Tensor, mask: Tensor) -> Tensor:
    if number is None or number < 0:
        return torch.zeros(0)
    return apply_head(HEADS[number], HeadTensors.of(HEADS[number]), hidden[None], mask[None], _pooler)[0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-1, len(HEADS) - 1)), min_size=1, max_size=12), st.integers(0, 99))
def test_any_batch_equals_each_head_alone(chosen: list[int | None], seed: int) -> None:
    hidden, mask = _inputs(len(chosen), seed)
    tier = _tier()
    heads = HeadPlan(_residents(tier, chosen), HIDDEN, "cpu")
    logits = heads.apply(tier.arena, hidden, mask, _pooler)
    assert logits.dtype == torch.float32
    assert logits.shape == (len(chosen), heads.counts.max())
    for row, number in enumerate(chosen):
        expected = _expected(number, hidden[row], mask[row])
        assert heads.counts[row] == len(expected)
        torch.testing.assert_close(logits[row, : len(expected)], expected, rtol=0, atol=1e-5)
        assert not logits[row, len(expected) :].any()


@pytest.mark.parametrize("chosen", [FIRST_TOKEN, [3], [3, 4, 10]], ids=["all", "one", "pooler-for-all"])
def test_the_first_token_alone_gives_the_same_when_all_heads_read_it(chosen: list[int]) -> None:
    hidden, mask = _inputs(len(chosen))
    tier = _tier()
    heads = HeadPlan(_residents(tier, chosen), HIDDEN, "cpu")
    assert heads.first_only
    logits = heads.apply(tier.arena, hidden[:, :1], None, _pooler)
    for row, number in enumerate(chosen):
        expected = _expected(number, hidden[row], mask[row])
        torch.testing.assert_close(logits[row, : len(expected)], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "chosen", [[0, len(HEADS) - 1], [0, -1], [0, None], [None]], ids=["mean", "headless", "base", "none"]
)
def test_first_only_is_false_when_a_row_reads_other_tokens_or_has_no_head(chosen: list[int | None]) -> None:
    assert not HeadPlan(_residents(_tier(), chosen), HIDDEN, "cpu").first_only


def test_bfloat16_heads_are_near_float32() -> None:
    chosen = list(range(len(HEADS)))
    hidden, mask = _inputs(len(chosen))
    tier = _tier(torch.bfloat16)
    logits = HeadPlan(_residents(tier, chosen), HIDDEN, "cpu").apply(tier.arena, hidden.bfloat16(), mask, _pooler)
    assert logits.dtype == torch.float32
    for row, number in enumerate(chosen):
        expected = _expected(number, hidden[row], mask[row])
        torch.testing.assert_close(logits[row, : len(expected)], expected, rtol=0.03, atol=0.06)


def test_mean_pool_reads_real_tokens_only() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]], [[5.0, 5.0], [0.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert mean_pool(hidden, mask).tolist() == [[2.0, 3.0], [0.0, 0.0]]


def test_mean_pool_loses_nothing_when_many_tokens_are_in_half_precision() -> None:
    """A sum in bfloat16 would not grow beyond 256."""
    hidden = torch.ones(1, 1000, 2, dtype=torch.bfloat16)
    pooled = mean_pool(hidden, torch.ones(1, 1000, dtype=torch.bool))
    assert pooled.dtype == torch.bfloat16
    assert pooled.tolist() == [[1.0, 1.0]]


def test_heads_refuse_when_a_pooler_is_needed_and_none_is_given() -> None:
    tier = _tier()
    hidden, mask = _inputs(2)
    for chosen in ([3, 3], [3, 0]):
        with pytest.raises(ValueError, match="pooler"):
            HeadPlan(_residents(tier, chosen), HIDDEN, "cpu").apply(tier.arena, hidden, mask, None)


def test_heads_refuse_when_a_mean_is_needed_and_no_mask_is_given() -> None:
    tier = _tier()
    with pytest.raises(ValueError, match="mask"):
        HeadPlan(_residents(tier, [len(HEADS) - 1]), HIDDEN, "cpu").apply(tier.arena, _inputs(1)[0], None, None)


def test_batch_without_heads_gives_no_logits() -> None:
    tier = _tier()
    hidden, mask = _inputs(2)
    heads = HeadPlan(_residents(tier, [-1, None]), HIDDEN, "cpu")
    assert heads.apply(tier.arena, hidden, mask, None).shape == (2, 0)
    assert heads.counts.tolist() == [0, 0]
