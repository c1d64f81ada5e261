"""Every row with an adapter is in one part at each place, and the part finds its weights in the arena."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hmi.adapters.maths import NO_LAYERS, QKV, GatheredPlan, Method, order_key
from hmi.adapters.maths.plan import Part, places
from hmi.adapters.tiers import DeviceTier, Resident, pack_adapter
from hmi.spec import Placement, Site
from tests.adapter_samples import sample_spec, sixteen_tenants

WIDTH = 32
SPEC = sample_spec(inner=80)
PACKED = [pack_adapter(adapter, WIDTH, torch.float32) for adapter in sixteen_tenants(SPEC)]
BANK = DeviceTier(WIDTH, 8 * 1024**2, "cpu", torch.float32)
# Two tenants of each layout.
RESIDENTS = [BANK.insert(f"{number}-{twin}", packed) for number, packed in enumerate(PACKED) for twin in "ab"]
BODIES = [resident for resident in RESIDENTS if resident.body.rows]

_stretches = st.lists(st.tuples(st.one_of(st.none(), st.sampled_from(RESIDENTS)), st.integers(1, 11)), max_size=8)
batches = _stretches.map(lambda drawn: [resident for resident, times in drawn for _ in range(times)])


def apart(first_only: bool) -> range:
    return range(SPEC.layers - 1, SPEC.layers) if first_only else NO_LAYERS


def _plan(residents: Sequence[Resident | None], method: Method, *, first_only: bool = False) -> GatheredPlan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hmi.adapters.maths.plan.choose_method", lambda *_, **__: method)
        return GatheredPlan(residents, 7, "cpu", apart=apart(first_only))


def _served(part: Part) -> list[int]:
    """The rows of the batch that a part adds something to; others among its rows get the zero row throughout."""
    rows = list(range(part.rows.start, part.rows.stop))
    if part.spans is not None:
        return rows
    counts = [len(rows) * len(columns) for columns in part.step.columns]
    matrices = [index.view(len(rows), -1) for index in torch.split(part.index, counts)]
    served = [row for row, index in zip(rows, matrices[0], strict=True) if index.any()]
    for matrix in matrices:
        for row, index in zip(rows, matrix, strict=True):
            assert bool(index.all()) is bool(index.any()) is (row in served)
    return served


def _most_parts(plan: GatheredPlan) -> int:
    return max(len(parts) for parts in plan.parts.values())


@settings(deadline=None)
@given(batches, st.sampled_from([Method.GATHERED, Method.SEGMENTS]), st.booleans())
def test_each_row_is_in_one_part_at_each_of_its_places_when_the_order_is_any(
    residents: list[Resident | None], method: Method, first_only: bool
) -> None:
    plan = _plan(residents, method, first_only=first_only)
    planned: dict[tuple[int, object], list[int]] = defaultdict(list)
    for (layer, place), parts in plan.parts.items():
        for part in parts:
            assert 0 <= part.rows.start < part.rows.stop <= len(residents)
            for row in _served(part):
                resident = residents[row]
                assert resident is not None
                assert resident.body is part.layout
                for what in [place] if isinstance(place, Placement) else [place[p] for p, _ in part.step.loras]:
                    planned[layer, what].append(row)
    expected: dict[tuple[int, object], list[int]] = defaultdict(list)
    for row, resident in enumerate(residents):
        for key in [*resident.body.lora, *resident.body.bottleneck] if resident else ():
            expected[key].append(row)
    assert {key: sorted(rows) for key, rows in planned.items()} == expected
    assert set(plan.parts) == set(places(residents, apart(first_only)))


@settings(deadline=None)
@given(batches, st.sampled_from([Method.GATHERED, Method.SEGMENTS]))
def test_the_index_leads_to_the_weights_of_each_row_or_tenant(residents: list[Resident | None], method: Method) -> None:
    packed = {resident.digest: PACKED[number // 2] for number, resident in enumerate(RESIDENTS)}
    for part in (part for parts in _plan(residents, method).parts.values() for part in parts):
        served = _served(part)
        members = [
            resident.digest if resident is not None and row in served else None
            for row, resident in enumerate(residents)
        ][part.rows]
        if part.spans is not None:
            assert [row for span in part.spans for row in range(span.start, span.stop)] == list(range(len(members)))
            assert all(len(set(members[span])) == 1 for span in part.spans)
            members = [members[span.start] for span in part.spans]
        wanted = [
            packed[each].rows[columns] if each is not None else torch.zeros(len(columns), BANK.arena.shape[1])
            for columns in part.step.columns
            for each in members
        ]
        assert torch.equal(BANK.arena[part.index], torch.cat(wanted))


def test_five_rows_are_computed_as_six_when_there_is_a_neighbour() -> None:
    for residents, rows in (
        ([None, *BODIES[:1] * 5, None, None], slice(1, 7)),
        ([None, None, *BODIES[:1] * 5], slice(1, 7)),
        (BODIES[:1] * 5, slice(0, 5)),
    ):
        parts = [part for parts in _plan(residents, Method.GATHERED).parts.values() for part in parts]
        assert {(part.rows.start, part.rows.stop) for part in parts} == {(rows.start, rows.stop)}


def test_numbers_of_rows_that_are_multiplied_are_few_when_a_layout_has_any() -> None:
    """Each new one costs the library that multiplies more than the product."""
    one, other = RESIDENTS[0], RESIDENTS[2]
    found = set()
    for count in range(1, 129):
        for part in _plan([other, *[one] * count, *[other] * 127], Method.GATHERED).parts[0, QKV]:
            if part.layout is one.body:
                found.add(part.rows.stop - part.rows.start)
                assert len(_served(part)) == count
    assert found == {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128}


def test_a_layout_is_one_part_and_a_tenant_one_span_when_rows_are_ordered() -> None:
    shuffled: list[Resident | None] = [None, *BODIES, *BODIES, None]
    random.Random(1).shuffle(shuffled)
    ordered = sorted(shuffled, key=order_key)
    plan = _plan(ordered, Method.SEGMENTS)
    for parts in plan.parts.values():
        assert max(Counter(id(part.layout) for part in parts).values()) == 1
        assert all(len(part.spans or ()) == 2 for part in parts)
    assert _most_parts(_plan(shuffled, Method.SEGMENTS)) > _most_parts(plan)


def test_rows_without_anything_to_add_come_together_when_ordered() -> None:
    headless = [resident for resident in RESIDENTS if not resident.body.rows]
    assert headless
    ordered = sorted([*BODIES, *headless, None], key=order_key)
    assert {each.digest for each in ordered[: len(headless) + 1] if each} == {each.digest for each in headless}
    assert not GatheredPlan([None, *headless], 7, "cpu").parts
    assert not GatheredPlan([], 7, "cpu").parts


def test_q_is_asked_for_alone_in_the_last_layer_when_only_first_tokens_are_wanted() -> None:
    last = SPEC.layers - 1
    whole, first = (_plan(BODIES, Method.GATHERED, first_only=flag) for flag in (False, True))
    assert (last, QKV) in whole.parts
    assert (last, QKV) not in first.parts
    assert {(last, QKV[:1]), (last, QKV[1:])} <= set(first.parts)
    assert {place for place in whole.parts if place[0] < last} == {place for place in first.parts if place[0] < last}


def test_the_way_is_chosen_by_rank_tokens_rows_and_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def choose(device: str, rank: int, tokens: int, rows: int, tenants: int, *, row_bytes: int) -> Method:
        asked.append((device, rank, tokens, rows, tenants, row_bytes))
        return Method.SEGMENTS if rank == 24 else Method.GATHERED

    monkeypatch.setattr("hmi.adapters.maths.plan.choose_method", choose)
    one, other = RESIDENTS[2:4]  # rank 8 on all six sites
    plan = GatheredPlan([one, one, other], 7, "cpu", row_bytes=128)
    assert set(asked) == {("cpu", 24, 7, 3, 2, 128), ("cpu", 8, 7, 3, 2, 128)}  # q, k and v are one product of 24
    (together,), (alone,) = plan.parts[0, QKV], plan.parts[0, (Site.O,)]
    assert together.spans == (slice(0, 2), slice(2, 3))
    assert alone.spans is None
