from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hmi.adapters.adapter import Activation, Adapter, Pooling, Transform
from hmi.adapters.bank import Bank, Resident
from hmi.adapters.batched import BatchedAdapters
from hmi.adapters.heads import HeadTensors, apply_head, apply_heads, mean_pool
from hmi.adapters.maths import AdapterMaths, NoAdapters, SingleAdapter
from hmi.spec import Placement, Site
from tests.adapter_samples import bottleneck_adapter, head, head_adapter, lora_adapter, sample_spec

HIDDEN = 32
SPEC = sample_spec()
TOKENS = 7


def _tenants() -> list[Adapter]:
    """Sixteen: every kind, rank, placement, activation, head and label count, in no order."""
    rng = np.random.default_rng(3)
    heads = [
        head(rng, 2),
        head(rng, 3, transform=Transform.POOLER),
        head(rng, 7, transform=Transform.POOLER, own_dense=True),
        head(rng, 2, transform=Transform.DENSE, own_dense=True, activation=Activation.RELU),
        head(rng, 3, pooling=Pooling.MEAN),
        head(rng, 7, transform=Transform.POOLER_DENSE, own_dense=True),
        head(rng, 40, transform=Transform.DENSE, own_dense=True, activation=Activation.IDENTITY),
        None,
    ]
    every_site = tuple(Site)
    both = tuple(Placement)
    upper = sample_spec(k=2)
    return [
        lora_adapter(rng, 4, head=heads[0]),
        lora_adapter(rng, 8, sites=every_site, head=heads[1]),
        lora_adapter(rng, 16, sites=(Site.K, Site.FC1), head=heads[2]),
        lora_adapter(rng, 4, sites=every_site, head=heads[3]),
        lora_adapter(rng, 4, spec=upper, head=heads[4]),
        lora_adapter(rng, 16, sites=(Site.O, Site.FC2, Site.Q), head=heads[5]),
        bottleneck_adapter(rng, 16, head=heads[6]),
        bottleneck_adapter(rng, 48, places=both, head=heads[7]),
        bottleneck_adapter(rng, 16, places=both, before_norm=False, activation=Activation.SWISH, head=heads[0]),
        bottleneck_adapter(rng, 48, before_norm=False, activation=Activation.GELU, head=heads[1]),
        bottleneck_adapter(rng, 16, spec=upper, places=both, activation=Activation.GELU, head=heads[2]),
        bottleneck_adapter(rng, 16, places=both, activation=Activation.RELU, head=heads[3]),
        head_adapter(head(rng, 5)),
        head_adapter(head(rng, 2, transform=Transform.POOLER)),
        lora_adapter(rng, 8, head=None),
        bottleneck_adapter(rng, 1, places=(Placement.ATTENTION,), before_norm=False, head=heads[4]),
    ]


class TinyModel:
    """The places where a model asks for adapters, in a model's order, without the attention between."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.linears = {site: nn.Linear(*SPEC.site_shape(site)) for site in Site}
        self.norms = {place: nn.LayerNorm(HIDDEN) for place in Placement}
        for norm in self.norms.values():
            nn.init.normal_(norm.weight, 1, 0.3)
            nn.init.normal_(norm.bias, 0, 0.3)
        self.dense = nn.Linear(HIDDEN, HIDDEN)

    @torch.inference_mode()
    def run(self, x: Tensor, maths: AdapterMaths) -> Tensor:
        for layer in range(SPEC.layers):
            mixed = torch.stack([self._linear(maths, layer, site, x) for site in (Site.Q, Site.K, Site.V)]).sum(0)
            x = self._close(maths, layer, Placement.ATTENTION, self._linear(maths, layer, Site.O, mixed), x)
            inner = torch.tanh(self._linear(maths, layer, Site.FC1, x))
            x = self._close(maths, layer, Placement.OUTPUT, self._linear(maths, layer, Site.FC2, inner), x)
        return x

    def pooler(self, first: Tensor) -> Tensor:
        return torch.tanh(self.dense(first))

    def _linear(self, maths: AdapterMaths, layer: int, site: Site, x: Tensor) -> Tensor:
        y: Tensor = self.linears[site](x)
        delta = maths.lora(layer, site, x)
        return y if delta is None else y + delta

    def _close(self, maths: AdapterMaths, layer: int, place: Placement, hidden: Tensor, residual: Tensor) -> Tensor:
        norm = self.norms[place]
        closed: Tensor = norm(maths.bottleneck(layer, place, hidden, residual, norm) + residual)
        return closed


MODEL = TinyModel()
TENANTS = _tenants()


def _residents(bank: Bank, chosen: Sequence[int | None]) -> list[Resident | None]:
    return [None if number is None else bank.ensure(f"{number}", TENANTS[number], pin=True) for number in chosen]


def _single(number: int | None) -> AdapterMaths:
    return NoAdapters() if number is None else SingleAdapter.of(TENANTS[number])


def _inputs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, TOKENS, HIDDEN, generator=generator)
    lengths = torch.randint(1, TOKENS + 1, (count,), generator=generator)
    return x, torch.arange(TOKENS) < lengths[:, None]


def _expected_logits(number: int | None, hidden: Tensor, mask: Tensor) -> Tensor:
    own = None if number is None else TENANTS[number].head
    if own is None:
        return torch.zeros(0)
    return apply_head(own, HeadTensors.of(own), hidden[None], mask[None], MODEL.pooler)[0]


def _check(chosen: Sequence[int | None], seed: int = 0) -> None:
    x, mask = _inputs(len(chosen), seed)
    bank = Bank(HIDDEN, 8 * 1024**2, "cpu", torch.float32)
    residents = _residents(bank, chosen)
    hidden = MODEL.run(x, BatchedAdapters(bank.arena, residents))
    with torch.inference_mode():
        logits, counts = apply_heads(bank.arena, residents, hidden, mask, MODEL.pooler)
    assert logits.dtype == torch.float32
    for row, number in enumerate(chosen):
        alone = MODEL.run(x[row : row + 1], _single(number))[0]
        torch.testing.assert_close(hidden[row], alone, rtol=0, atol=1e-5)
        with torch.inference_mode():
            expected = _expected_logits(number, alone, mask[row])
        assert int(counts[row]) == len(expected)
        torch.testing.assert_close(logits[row, : len(expected)], expected, rtol=0, atol=2e-5)
        assert not logits[row, len(expected) :].any()


def test_batch_of_32_equals_each_tenant_alone_when_kinds_ranks_and_heads_are_mixed() -> None:
    rng = np.random.default_rng(4)
    order = rng.permutation([*range(16), *range(12), None, None, None, None])
    _check(list(order))


@settings(max_examples=25, deadline=None)
@given(chosen=st.lists(st.one_of(st.none(), st.integers(0, 15)), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_any_batch_equals_each_tenant_alone(chosen: list[int | None], seed: int) -> None:
    _check(chosen, seed)


@pytest.mark.parametrize("chosen", [[0, 3, 0, 4, 3], [6, 11, 6, 11]], ids=["lora", "bottleneck"])
def test_interleaved_tenants_keep_their_rows_when_they_share_a_rank_but_not_all_places(chosen: list[int]) -> None:
    _check(chosen)


@pytest.mark.parametrize("number", range(16))
def test_batch_of_one_tenant_equals_that_tenant(number: int) -> None:
    _check([number] * 3)


def test_adapters_change_the_answer() -> None:
    """A guard for the tests above: with weights that do nothing they would all pass."""
    x, _ = _inputs(1)
    base = MODEL.run(x, NoAdapters())
    for number, tenant in enumerate(TENANTS):
        changed = (MODEL.run(x, _single(number)) - base).abs().max()
        assert (changed > 0.05) == bool(tenant.lora or tenant.bottleneck)


def test_rows_do_not_depend_on_their_batch_mates() -> None:
    bank = Bank(HIDDEN, 8 * 1024**2, "cpu", torch.float32)
    x, _ = _inputs(6)
    together = MODEL.run(x, BatchedAdapters(bank.arena, _residents(bank, [3, 8, None, 10, 3, 5])))
    other = x.clone()
    other[[0, 2, 3, 4, 5]] = 100.0
    apart = MODEL.run(other, BatchedAdapters(bank.arena, _residents(bank, [7, 8, 1, None, 9, 0])))
    torch.testing.assert_close(together[1], apart[1], rtol=0, atol=1e-5)


def test_nothing_is_added_when_nobody_has_an_adapter_there() -> None:
    bank = Bank(HIDDEN, 8 * 1024**2, "cpu", torch.float32)
    maths = BatchedAdapters(bank.arena, _residents(bank, [0, None, 12]))
    x, _ = _inputs(3)
    assert maths.lora(0, Site.K, x) is None
    assert maths.bottleneck(0, Placement.OUTPUT, x, x, MODEL.norms[Placement.OUTPUT]) is x
    delta = maths.lora(0, Site.Q, x)
    assert delta is not None
    assert not delta[1:].any()


def test_input_is_not_written_to() -> None:
    bank = Bank(HIDDEN, 8 * 1024**2, "cpu", torch.float32)
    maths = BatchedAdapters(bank.arena, _residents(bank, [6, 9, None]))
    x, _ = _inputs(3)
    hidden, residual = x.clone(), x.clone()
    maths.bottleneck(0, Placement.OUTPUT, hidden, residual, MODEL.norms[Placement.OUTPUT])
    assert torch.equal(hidden, x)
    assert torch.equal(residual, x)


def test_bfloat16_batch_is_near_float32() -> None:
    chosen = [0, 1, 6, 9, None]
    x, _ = _inputs(5)
    exact_bank = Bank(HIDDEN, 8 * 1024**2, "cpu", torch.float32)
    bank = Bank(HIDDEN, 8 * 1024**2, "cpu", torch.bfloat16)
    exact = BatchedAdapters(exact_bank.arena, _residents(exact_bank, chosen))
    rounded = BatchedAdapters(bank.arena, _residents(bank, chosen))
    expected, found = exact.lora(1, Site.Q, x), rounded.lora(1, Site.Q, x.bfloat16())
    assert expected is not None
    assert found is not None
    assert found.dtype == torch.bfloat16
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


def test_mean_pool_reads_real_tokens_only() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]], [[5.0, 5.0], [0.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert mean_pool(hidden, mask).tolist() == [[2.0, 3.0], [0.0, 0.0]]


def test_heads_refuse_when_a_pooler_is_wanted_and_none_is_given() -> None:
    bank = Bank(HIDDEN, 8 * 1024**2, "cpu", torch.float32)
    x, mask = _inputs(1)
    with pytest.raises(ValueError, match="pooler"):
        apply_heads(bank.arena, _residents(bank, [13]), x, mask, None)


def test_batch_without_heads_gives_no_logits() -> None:
    bank = Bank(HIDDEN, 8 * 1024**2, "cpu", torch.float32)
    x, mask = _inputs(2)
    logits, counts = apply_heads(bank.arena, _residents(bank, [14, None]), x, mask, None)
    assert logits.shape == (2, 0)
    assert counts.tolist() == [0, 0]
