"""Heads that answer for every token, beside heads of whole sequences, against each head alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hmi.adapters import MAX_TOKEN_LABELS, Activation, Adapter, AdapterKind, Head, Pooling, Transform
from hmi.adapters.formats import load_adapter, save_adapter
from hmi.adapters.maths import HeadPlan, HeadTensors, TokenHeadPlan, apply_head
from hmi.adapters.tiers import DeviceTier, Resident, pack_adapter
from hmi.errors import AdapterRefused
from tests.adapter_samples import head, head_adapter, sample_spec

HIDDEN, TOKENS = 32, 7
RNG = np.random.default_rng(3)
HEADS: list[Head] = [
    head(RNG, 3, pooling=Pooling.TOKENS),
    head(RNG, 3, pooling=Pooling.TOKENS),
    head(RNG, 40, pooling=Pooling.TOKENS),
    head(RNG, 2, pooling=Pooling.TOKENS),
    head(RNG, 5),
    head(RNG, 3, pooling=Pooling.MEAN),
]


def residents(tier: DeviceTier, chosen: list[int | None]) -> list[Resident | None]:
    def resident(number: int) -> Resident:
        packed = pack_adapter(head_adapter(HEADS[number]), HIDDEN, tier.arena.dtype)
        return tier.pin(f"{number}") or tier.insert_pinned(f"{number}", packed)

    return [None if number is None else resident(number) for number in chosen]


@settings(max_examples=50)
@given(st.lists(st.one_of(st.none(), st.integers(0, len(HEADS) - 1)), min_size=1, max_size=10), st.integers(0, 99))
def test_token_heads_of_any_batch_equal_each_head_alone(chosen: list[int | None], seed: int) -> None:
    tier = DeviceTier(HIDDEN, 1024**2, "cpu", torch.float32)
    hidden = torch.randn(len(chosen), TOKENS, HIDDEN, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(len(chosen), TOKENS, dtype=torch.bool)
    found = residents(tier, chosen)
    plan, whole = TokenHeadPlan(found, HIDDEN, "cpu"), HeadPlan(found, HIDDEN, "cpu")
    expected_rows = [row for row, n in enumerate(chosen) if n is not None and HEADS[n].pooling is Pooling.TOKENS]
    assert plan.rows == expected_rows
    assert not whole.counts[expected_rows].any()
    assert not (whole.first_only and expected_rows)
    if not expected_rows:
        return
    labels, scores = plan.apply(tier.arena, hidden)
    assert labels.shape == scores.shape == (len(expected_rows), TOKENS)
    for place, row in enumerate(expected_rows):
        own = HEADS[chosen[row] or 0]
        logits = apply_head(own, HeadTensors.of(own), hidden[row : row + 1], mask[row : row + 1], None)[0]
        best = logits.softmax(-1).max(-1)
        torch.testing.assert_close(scores[place], best.values, rtol=0, atol=1e-6)
        assert torch.equal(labels[place], best.indices)


def test_scores_are_nan_when_the_states_hold_nan() -> None:
    tier = DeviceTier(HIDDEN, 1024**2, "cpu", torch.float32)
    plan = TokenHeadPlan(residents(tier, [0, 2]), HIDDEN, "cpu")
    hidden = torch.ones(2, TOKENS, HIDDEN)
    hidden[0, 3] = torch.nan
    scores = plan.apply(tier.arena, hidden)[1]
    assert scores.isnan().nonzero().tolist() == [[0, 3]]


def token_head(labels: int, **changes: object) -> Head:
    return head(np.random.default_rng(0), labels, pooling=Pooling.TOKENS, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (token_head(3, transform=Transform.POOLER), "transform pooler"),
        (token_head(3, transform=Transform.DENSE, own_dense=True), "transform dense"),
        (token_head(3, multi_label=True), "multi-label"),
        (token_head(MAX_TOKEN_LABELS + 1), f"at most {MAX_TOKEN_LABELS}"),
    ],
)
def test_head_is_refused_when_a_part_would_not_be_applied(wrong: Head, reason: str) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        head_adapter(wrong).validate(sample_spec())


def test_head_is_the_same_when_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    adapter = Adapter(AdapterKind.NONE, {}, {}, True, Activation.RELU, token_head(3))
    save_adapter(adapter, path)
    found = load_adapter(path)
    assert found.head is not None
    assert found.head.pooling is Pooling.TOKENS
    assert found.summary()["pooling"] == "tokens"
