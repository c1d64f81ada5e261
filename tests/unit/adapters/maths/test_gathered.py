"""Each row of a batch against its own adapter alone, computed by `SingleAdapter`."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hmi.adapters import Adapter
from hmi.adapters.maths import (
    QKV,
    HeadPlan,
    HeadTensors,
    Method,
    NoAdapters,
    SingleAdapter,
    TrainingAdapters,
    apply_head,
)
from hmi.adapters.maths.gathered import GatheredAdapters
from hmi.adapters.maths.plan import NO_LAYERS, GatheredPlan
from hmi.adapters.tiers import DeviceTier, Resident, pack_adapter
from hmi.spec import Placement, Site
from tests.adapter_samples import bottleneck_adapter, sample_spec, sixteen_tenants
from tests.tiny_layers import TinyModel

HIDDEN = 32
TOKENS = 7
LAST = sample_spec().layers - 1
APART = (Method.GATHERED, Method.SEGMENTS)


# The second one's feed-forward is no multiple of the arena's width.
SPECS = {inner: sample_spec(inner=inner) for inner in (64, 80)}
MODELS = {inner: TinyModel(spec) for inner, spec in SPECS.items()}
TENANTS = {inner: sixteen_tenants(spec) for inner, spec in SPECS.items()}
MODEL = MODELS[64]


def _tier(dtype: torch.dtype = torch.float32) -> DeviceTier:
    return DeviceTier(HIDDEN, 8 * 1024**2, "cpu", dtype)


def _residents(tier: DeviceTier, chosen: Sequence[int | None], inner: int = 64) -> list[Resident | None]:
    return [None if number is None else _resident(tier, f"{number}", TENANTS[inner][number]) for number in chosen]


def _resident(tier: DeviceTier, key: str, adapter: Adapter) -> Resident:
    return tier.pin(key) or tier.insert_pinned(key, pack_adapter(adapter, HIDDEN, tier.arena.dtype))


def _batched(tier: DeviceTier, residents: Sequence[Resident | None], *, first_only: bool = False) -> GatheredAdapters:
    apart = range(LAST, LAST + 1) if first_only else NO_LAYERS
    return GatheredAdapters(tier.arena, GatheredPlan(residents, "cpu", unfused=apart))


@functools.cache
def _single(number: int | None, inner: int = 64) -> TrainingAdapters:
    return NoAdapters() if number is None else SingleAdapter.of(TENANTS[inner][number])


def _inputs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, TOKENS, HIDDEN, generator=generator)
    lengths = torch.randint(1, TOKENS + 1, (count,), generator=generator)
    return x, torch.arange(TOKENS) < lengths[:, None]


def _expected_logits(number: int | None, hidden: Tensor, mask: Tensor, inner: int) -> Tensor:
    own = None if number is None else TENANTS[inner][number].head
    if own is None:
        return torch.zeros(0)
    return apply_head(own, HeadTensors.of(own), hidden[None], mask[None], MODELS[inner].pooler)[0]


def _check(
    chosen: Sequence[int | None],
    seed: int = 0,
    *,
    method: Method | None = None,
    inner: int = 64,
    first_only: bool = False,
) -> None:
    """States, and the logits where all tokens are there."""
    x, mask = _inputs(len(chosen), seed)
    model, tier = MODELS[inner], _tier()
    residents = _residents(tier, chosen, inner)
    with pytest.MonkeyPatch.context() as patch:
        if method is not None:
            patch.setattr("hmi.adapters.maths.plan.choose_method", lambda *_, **__: method)
        adapters = _batched(tier, residents, first_only=first_only)
    hidden = model.run_batch(x, adapters, first_only=first_only)
    assert hidden.shape[1] == (1 if first_only else TOKENS)
    alone = [model.run(x[row : row + 1], _single(number, inner))[0] for row, number in enumerate(chosen)]
    for row, expected in enumerate(alone):
        torch.testing.assert_close(
            hidden[row],
            expected[: hidden.shape[1]],
            rtol=0,
            atol=2e-5,
            # Rounding, of states of size 1 to 9: one processor's differs from the next one's.
        )
    if first_only:
        return
    with torch.inference_mode():
        heads = HeadPlan(residents, HIDDEN, "cpu")
        logits = heads.apply(tier.arena, hidden, mask, model.pooler)
        assert logits.dtype == torch.float32
        for row, number in enumerate(chosen):
            wanted = _expected_logits(number, alone[row], mask[row], inner)
            assert heads.counts[row] == len(wanted)
            torch.testing.assert_close(logits[row, : len(wanted)], wanted, rtol=0, atol=2e-5)
            assert not logits[row, len(wanted) :].any()


@pytest.mark.parametrize("inner", SPECS)
@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("method", [None, *APART])
def test_batch_of_32_equals_each_tenant_alone_when_kinds_ranks_and_heads_are_mixed(
    method: Method | None, first_only: bool, inner: int
) -> None:
    rng = np.random.default_rng(4)
    order = rng.permutation([*range(16), *range(12), None, None, None, None])
    _check(list(order), method=method, inner=inner, first_only=first_only)


@settings(max_examples=50, deadline=None)
@given(
    drawn=st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 15)), st.integers(1, 7)), min_size=1, max_size=6),
    seed=st.integers(0, 99),
    method=st.sampled_from([None, *APART]),
    inner=st.sampled_from(list(SPECS)),
    first_only=st.booleans(),
    ordered=st.booleans(),
)
def test_any_batch_equals_each_tenant_alone(
    drawn: list[tuple[int | None, int]], seed: int, method: Method | None, inner: int, first_only: bool, ordered: bool
) -> None:
    chosen = [number for number, times in drawn for _ in range(times)]
    if ordered:
        chosen.sort(key=lambda number: -1 if number is None else number)
    _check(chosen, seed, method=method, inner=inner, first_only=first_only)


@pytest.mark.parametrize("method", APART)
@pytest.mark.parametrize("chosen", [[0, 3, 0, 4, 3], [6, 11, 6, 11]], ids=["lora", "bottleneck"])
def test_interleaved_tenants_keep_their_rows_when_they_share_a_rank_but_not_all_places(
    chosen: list[int], method: Method
) -> None:
    _check(chosen, method=method)


@pytest.mark.parametrize("method", APART)
@pytest.mark.parametrize("number", range(16))
def test_batch_of_one_tenant_equals_that_tenant(number: int, method: Method) -> None:
    _check([number] * 3, method=method)


@pytest.mark.parametrize("chosen", [[None, None, 0], [None, 12, None, None, 6, 6, None, None, 3]])
def test_tenants_keep_their_rows_when_rows_without_an_adapter_precede_them(chosen: list[int | None]) -> None:
    _check(chosen)


@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize(
    "chosen", [[0] * 5 + [6] * 9 + [8] * 7 + [None] * 3, [None, 1, 1, 1, 1, 1, 3], [9] * 5 + [10] * 5]
)
def test_neighbours_in_a_padded_group_are_unchanged(chosen: list[int | None], first_only: bool) -> None:
    """Five rows are multiplied as six."""
    _check(chosen, method=Method.GATHERED, first_only=first_only)


def test_adapters_change_the_answer() -> None:
    """With weights that have no effect, all tests above would pass."""
    x, _ = _inputs(1)
    for inner, tenants in TENANTS.items():
        base = MODELS[inner].run(x, NoAdapters())
        for number, tenant in enumerate(tenants):
            changed = (MODELS[inner].run(x, _single(number, inner)) - base).abs()[:, 0].max()
            assert (changed > 0.05) == bool(tenant.lora or tenant.bottleneck)


@pytest.mark.parametrize("method", APART)
@pytest.mark.parametrize("value", [100.0, torch.nan])
def test_rows_do_not_depend_on_their_batch_mates(value: float, method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmi.adapters.maths.plan.choose_method", lambda *_, **__: method)
    tier = _tier()
    x, _ = _inputs(6)
    together = MODEL.run_batch(x, _batched(tier, _residents(tier, [3, 8, None, 10, 3, 5])))
    other = x.clone()
    other[[0, 2, 3, 4, 5]] = value
    apart = MODEL.run_batch(other, _batched(tier, _residents(tier, [7, 8, 1, None, 9, 0])))
    torch.testing.assert_close(together[1], apart[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", APART)
def test_nothing_is_added_when_no_row_has_an_adapter(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmi.adapters.maths.plan.choose_method", lambda *_, **__: method)
    tier = _tier()
    adapters = _batched(tier, _residents(tier, [0, None, 12]))
    x, _ = _inputs(3)
    total = x.clone()
    adapters.bottleneck(0, Placement.OUTPUT, total, None, MODEL.norms[Placement.OUTPUT])
    adapters.lora(0, (Site.FC2,), x, total.unsqueeze(2))
    assert torch.equal(total, x)
    parts = torch.zeros(3, TOKENS, 3, HIDDEN)
    adapters.lora(0, QKV, x, parts)
    assert parts[0, :, 0].any()
    assert parts[0, :, 2].any()
    assert not parts[0, :, 1].any()
    assert not parts[1:].any()
    assert not any(adapters.has_lora(layer, Site.FC1) for layer in range(LAST + 1))
    assert not any(adapters.reads_hidden(*each) for each in itertools.product(range(LAST + 1), Placement))


@pytest.mark.parametrize("method", APART)
def test_only_the_total_is_written_to(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmi.adapters.maths.plan.choose_method", lambda *_, **__: method)
    tier = _tier()
    adapters = _batched(tier, _residents(tier, [6, 9, None, 1]))
    x, _ = _inputs(4)
    hidden, total = x.clone(), 2 * x
    adapters.bottleneck(0, Placement.OUTPUT, total, hidden, MODEL.norms[Placement.OUTPUT])
    assert torch.equal(hidden, x)
    assert torch.equal(total[2:], 2 * x[2:])
    read = x.clone()
    adapters.lora(0, QKV, read, torch.zeros(4, TOKENS, 3, HIDDEN))
    assert torch.equal(read, x)


def test_an_adapter_that_reads_the_output_alone_needs_the_hidden_states() -> None:
    tier = _tier()
    adapters = _batched(tier, _residents(tier, [6, 9]))
    assert adapters.reads_hidden(0, Placement.OUTPUT)
    assert not adapters.reads_hidden(0, Placement.ATTENTION)
    with pytest.raises(ValueError, match="before the residual"):
        adapters.bottleneck(0, Placement.OUTPUT, _inputs(2)[0], None, MODEL.norms[Placement.OUTPUT])


@pytest.mark.parametrize("method", APART)
def test_bfloat16_batch_is_near_float32(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmi.adapters.maths.plan.choose_method", lambda *_, **__: method)
    chosen = [0, 1, 6, 9, None]
    x, _ = _inputs(5)
    exact_bank, tier = _tier(), _tier(torch.bfloat16)
    exact = _batched(exact_bank, _residents(exact_bank, chosen))
    rounded = _batched(tier, _residents(tier, chosen))
    expected = torch.zeros(5, TOKENS, 3, HIDDEN)
    found = expected.bfloat16()
    exact.lora(1, QKV, x, expected)
    rounded.lora(1, QKV, x.bfloat16(), found)
    assert expected.abs().max() > 1
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)


def test_single_adapter_is_differentiable_when_its_tensors_are_parameters() -> None:
    adapter = bottleneck_adapter(np.random.default_rng(0), 4)
    single = SingleAdapter.of(adapter)
    for part in single._bottleneck.values():
        part.down.requires_grad_()
    x, _ = _inputs(2)
    total = single.bottleneck(0, Placement.OUTPUT, x, x, MODEL.norms[Placement.OUTPUT]).sum()
    (gradient,) = torch.autograd.grad(total, [single._bottleneck[0, Placement.OUTPUT].down])
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("chosen", [[8, 0, 0, 0, 0, 0, 6, 6], [None, 0, 0, 0, 0, 0], [7, 7, 7, 7, 7, 6, None, 8]])
def test_neighbours_are_untouched_when_five_rows_are_computed_as_six(chosen: list[int | None]) -> None:
    _check(chosen, method=Method.GATHERED)
