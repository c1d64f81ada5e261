"""Many tenants' adapters in one serving forward, each row against its own adapter alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hmi.adapters import Activation, Adapter
from hmi.adapters.maths import Method, NoAdapters, ServingAdapters, SingleAdapter, TrainingAdapters, order_key
from hmi.adapters.maths.gathered import GatheredAdapters
from hmi.adapters.maths.kernel_adapters import KernelAdapters, KernelPlan
from hmi.adapters.maths.kernels import _check as check_kernel_arguments
from hmi.adapters.maths.plan import NO_LAYERS, GatheredPlan
from hmi.adapters.maths.single import activate
from hmi.adapters.tiers import DeviceTier, Resident, pack_adapter
from hmi.models.families import HBert, ServedBert
from hmi.models.families import served_bert as serving
from hmi.spec import HPLMSpec
from tests.adapter_samples import sample_spec, sixteen_tenants

TOKENS = 13
MIXED = [*np.random.default_rng(4).permutation([*range(16), *range(12), None, None, None, None])]


@functools.cache
def _pair(spec: HPLMSpec) -> tuple[HBert, ServedBert]:
    return _hbert(spec), ServedBert(_hbert(spec))


def _hbert(spec: HPLMSpec) -> HBert:
    model = HBert(spec).requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(9)
    for name, parameter in model.named_parameters():
        parameter.normal_(1.0 if "norm.weight" in name else 0.0, 0.2, generator=generator)
    return model


@functools.cache
def _tenants(spec: HPLMSpec) -> list[Adapter]:
    return sixteen_tenants(spec)


def _residents(tier: DeviceTier, spec: HPLMSpec, chosen: Sequence[int | None]) -> list[Resident | None]:
    def resident(number: int) -> Resident:
        packed = pack_adapter(_tenants(spec)[number], spec.hidden_size, tier.arena.dtype)
        return tier.pin(f"{number}") or tier.insert_pinned(f"{number}", packed)

    return [None if number is None else resident(number) for number in chosen]


def _inputs(count: int, hidden: int, *, padded: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, TOKENS, hidden, generator=generator)
    lengths = torch.randint(1, TOKENS + 1, (count,), generator=generator)
    return x, torch.arange(TOKENS) < (lengths if padded else torch.full_like(lengths, TOKENS))[:, None]


def apart(first_only: bool, last: int) -> range:
    return range(last, last + 1) if first_only else NO_LAYERS


def _batched(arena: Tensor, residents: Sequence[Resident | None], first_only: bool, last: int) -> ServingAdapters:
    return GatheredAdapters(arena, GatheredPlan(residents, "cpu", unfused=apart(first_only, last)))


def _segmented(arena: Tensor, residents: Sequence[Resident | None], first_only: bool, last: int) -> ServingAdapters:
    return KernelAdapters(arena, KernelPlan(residents, "cpu", unfused=apart(first_only, last)))


@torch.inference_mode()
def _check(
    spec: HPLMSpec,
    chosen: Sequence[int | None],
    *,
    padded: bool = True,
    first_only: bool = False,
    make: Callable[[Tensor, Sequence[Resident | None], bool, int], ServingAdapters] = _batched,
) -> None:
    model, served = _pair(spec)
    tier = DeviceTier(spec.hidden_size, 8 * 1024**2, "cpu", torch.float32)
    residents = _residents(tier, spec, chosen)
    adapters = make(tier.arena, residents, first_only, spec.layers - 1)
    x, mask = _inputs(len(chosen), spec.hidden_size, padded=padded)
    found = served.upper(x, mask if padded else None, adapters, first_only=first_only)
    for row, number in enumerate(chosen):
        maths: TrainingAdapters = NoAdapters() if number is None else SingleAdapter.of(_tenants(spec)[number])
        expected = model.upper(x[row : row + 1], mask[row : row + 1], maths)[0]
        real = mask[row, : found.shape[1]]
        torch.testing.assert_close(
            found[row][real],
            expected[: found.shape[1]][real],
            rtol=0,
            atol=2e-5,
            # Rounding, of states of size 1 to 9: one processor's differs from the next one's.
        )


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("k", [0, 2])
def test_a_mixed_batch_equals_each_tenant_alone(k: int, first_only: bool, padded: bool) -> None:
    _check(sample_spec(k=k), MIXED, padded=padded, first_only=first_only)


@pytest.mark.parametrize("method", [Method.GATHERED, Method.SEGMENTS])
@pytest.mark.parametrize("first_only", [False, True])
def test_a_mixed_batch_equals_each_tenant_alone_with_each_method(
    first_only: bool, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmi.adapters.maths.plan.choose_method", lambda *_, **__: method)
    _check(sample_spec(inner=80), MIXED, first_only=first_only)


@pytest.mark.parametrize("number", range(16))
def test_a_batch_of_one_tenant_equals_that_tenant(number: int) -> None:
    for first_only in (False, True):
        _check(sample_spec(k=1), [number] * 3, first_only=first_only)


def test_adapters_do_not_read_padding_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        serving, "pad_rows", lambda x: F.pad(x, (0, 0, 0, 8 + -len(x) % 8), value=torch.nan).contiguous()
    )
    for first_only in (False, True):
        _check(sample_spec(), MIXED, first_only=first_only)


@pytest.mark.parametrize("first_only", [False, True])
@torch.inference_mode()
def test_the_order_of_rows_changes_nothing(first_only: bool) -> None:
    """When ordered, each layout is one group; unordered, nearly each row is one."""
    spec = sample_spec()
    _, served = _pair(spec)
    tier = DeviceTier(spec.hidden_size, 8 * 1024**2, "cpu", torch.float32)
    residents = _residents(tier, spec, MIXED)
    x, mask = _inputs(len(MIXED), spec.hidden_size, padded=True)
    order = sorted(range(len(MIXED)), key=lambda row: order_key(residents[row]))

    def run(rows: list[int]) -> Tensor:
        members = [residents[row] for row in rows]
        plan = GatheredPlan(members, "cpu", unfused=apart(first_only, spec.layers - 1))
        return served.upper(x[rows], mask[rows], GatheredAdapters(tier.arena, plan), first_only=first_only)

    seen = mask[order][:, :1] if first_only else mask[order]
    torch.testing.assert_close(run(order)[seen], run(list(range(len(MIXED))))[order][seen], rtol=0, atol=1e-5)


def _loop_over_rows(
    y: Tensor,
    x: Tensor,
    arena: Tensor,
    ranks: Tensor,
    offsets: Tensor,
    index: Tensor,
    max_rank: int,
    activation: Activation | None = None,
) -> None:
    """Compute a kernel launch as a loop over rows."""
    check_kernel_arguments(y, x, arena, ranks, offsets, index, matrices=4 if activation else 2)
    outputs, width = y.shape[2] // len(ranks), arena.shape[1]

    def read(offset: int, vectors: int, length: int) -> Tensor:
        rows = index[offset : offset + vectors * -(-length // width)]
        return arena[rows].view(vectors, -1)[:, :length]

    for site, row in ranks.nonzero().tolist():
        rank, places = int(ranks[site, row]), offsets[site, :, row].tolist()
        assert rank <= max_rank
        inner = x[row] @ read(places[0], rank, x.shape[2]).t()
        if activation:
            inner = activate(activation, inner + read(places[2], 1, rank))
            y[row] += read(places[3], 1, outputs)
        y[row, :, site * outputs : (site + 1) * outputs] += inner @ read(places[1], rank, outputs)


@pytest.mark.parametrize("inner", [64, 80])
@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("k", [0, 2])
def test_a_mixed_batch_equals_each_tenant_alone_when_each_place_is_one_launch(
    k: int, first_only: bool, inner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This tests the kernels' arguments; other tests run the kernels."""
    monkeypatch.setattr("hmi.adapters.maths.kernel_adapters.apply_segmented", _loop_over_rows)
    _check(sample_spec(k=k, inner=inner), MIXED, first_only=first_only, make=_segmented)


def test_nothing_is_launched_when_no_row_has_an_adapter() -> None:
    tier = DeviceTier(32, 8 * 1024**2, "cpu", torch.float32)
    for residents in ([], [None], _residents(tier, sample_spec(), [None, 12, 13])):
        assert not KernelPlan(residents, "cpu").launches
