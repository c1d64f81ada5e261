"""Every row with an adapter is in one group at each place, and the group finds its weights in the arena."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hmi.adapters.maths import QKV, Method, order_key
from hmi.adapters.maths.plan import NO_LAYERS, GatheredPlan, RowGroup, adapted_places
from hmi.adapters.tiers import DeviceTier, Resident, pack_adapter
from hmi.spec import Placement, Site
from tests.adapter_samples import sample_spec, sixteen_tenants

WIDTH = 32
SPEC = sample_spec(inner=80)
PACKED = [pack_adapter(adapter, WIDTH, torch.float32) for adapter in sixteen_tenants(SPEC)]
TIER = DeviceTier(WIDTH, 8 * 1024**2, "cpu", torch.float32)
# Two tenants of each layout.
RESIDENTS = [TIER.insert_pinned(f"{number}-{copy}", packed) for number, packed in enumerate(PACKED) for copy in "ab"]
BODIES = [resident for resident in RESIDENTS if resident.body.rows]

_runs = st.lists(st.tuples(st.one_of(st.none(), st.sampled_from(RESIDENTS)), st.integers(1, 11)), max_size=8)
batches = _runs.map(lambda drawn: [resident for resident, times in drawn for _ in range(times)])


def unfused(first_only: bool) -> range:
    return range(SPEC.layers - 1, SPEC.layers) if first_only else NO_LAYERS


def _plan(residents: Sequence[Resident | None], method: Method, *, first_only: bool = False) -> GatheredPlan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hmi.adapters.maths.plan.choose_method", lambda *_, **__: method)
        return GatheredPlan(residents, "cpu", unfused=unfused(first_only))


def _served(group: RowGroup) -> list[int]:
    """Rows of the batch that a group adds something to; its other rows read only the zero row."""
    rows = list(range(group.rows.start, group.rows.stop))
    if group.spans is not None:
        return rows
    counts = [len(rows) * len(matrix_rows) for matrix_rows in group.op.matrices]
    matrices = [index.view(len(rows), -1) for index in torch.split(group.index, counts)]
    served = [row for row, index in zip(rows, matrices[0], strict=True) if index.any()]
    for matrix in matrices:
        for row, index in zip(rows, matrix, strict=True):
            assert bool(index.all()) is bool(index.any()) is (row in served)
    return served


def _most_groups(plan: GatheredPlan) -> int:
    return max(len(groups) for groups in plan.groups.values())


@settings(deadline=None)
@given(batches, st.sampled_from([Method.GATHERED, Method.SEGMENTS]), st.booleans())
def test_each_row_is_in_one_group_at_each_of_its_places_in_any_order(
    residents: list[Resident | None], method: Method, first_only: bool
) -> None:
    plan = _plan(residents, method, first_only=first_only)
    planned: dict[tuple[int, object], list[int]] = defaultdict(list)
    for (layer, place), groups in plan.groups.items():
        for group in groups:
            assert 0 <= group.rows.start < group.rows.stop <= len(residents)
            for row in _served(group):
                resident = residents[row]
                assert resident is not None
                assert resident.body is group.layout
                for what in [place] if isinstance(place, Placement) else [place[p] for p, _ in group.op.loras]:
                    planned[layer, what].append(row)
    expected: dict[tuple[int, object], list[int]] = defaultdict(list)
    for row, resident in enumerate(residents):
        for key in [*resident.body.lora, *resident.body.bottleneck] if resident else ():
            expected[key].append(row)
    assert {key: sorted(rows) for key, rows in planned.items()} == expected
    assert set(plan.groups) == set(adapted_places(residents, unfused(first_only)))


@settings(deadline=None)
@given(batches, st.sampled_from([Method.GATHERED, Method.SEGMENTS]))
def test_the_index_leads_to_the_weights_of_each_row_or_tenant(residents: list[Resident | None], method: Method) -> None:
    packed = {resident.key: PACKED[number // 2] for number, resident in enumerate(RESIDENTS)}
    for group in (group for groups in _plan(residents, method).groups.values() for group in groups):
        served = _served(group)
        members = [
            resident.key if resident is not None and row in served else None for row, resident in enumerate(residents)
        ][group.rows]
        if group.spans is not None:
            assert [row for span in group.spans for row in range(span.start, span.stop)] == list(range(len(members)))
            assert all(len(set(members[span])) == 1 for span in group.spans)
            members = [members[span.start] for span in group.spans]
        expected = [
            packed[each].rows[matrix_rows] if each is not None else torch.zeros(len(matrix_rows), TIER.arena.shape[1])
            for matrix_rows in group.op.matrices
            for each in members
        ]
        assert torch.equal(TIER.arena[group.index], torch.cat(expected))


def test_five_rows_are_computed_as_six_when_there_is_a_neighbour() -> None:
    for residents, rows in (
        ([None, *BODIES[:1] * 5, None, None], slice(1, 7)),
        ([None, None, *BODIES[:1] * 5], slice(1, 7)),
        (BODIES[:1] * 5, slice(0, 5)),
    ):
        groups = [group for groups in _plan(residents, Method.GATHERED).groups.values() for group in groups]
        assert {(group.rows.start, group.rows.stop) for group in groups} == {(rows.start, rows.stop)}


def test_groups_have_few_distinct_numbers_of_rows() -> None:
    """oneDNN takes longer to prepare itself for a new shape than to multiply."""
    one, other = RESIDENTS[0], RESIDENTS[2]
    found = set()
    for count in range(1, 129):
        for group in _plan([other, *[one] * count, *[other] * 127], Method.GATHERED).groups[0, QKV]:
            if group.layout is one.body:
                found.add(group.rows.stop - group.rows.start)
                assert len(_served(group)) == count
    assert found == {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128}


def test_a_layout_is_one_group_and_a_tenant_one_span_when_rows_are_ordered() -> None:
    shuffled: list[Resident | None] = [None, *BODIES, *BODIES, None]
    random.Random(1).shuffle(shuffled)
    ordered = sorted(shuffled, key=order_key)
    plan = _plan(ordered, Method.SEGMENTS)
    for groups in plan.groups.values():
        assert max(Counter(id(group.layout) for group in groups).values()) == 1
        assert all(len(group.spans or ()) == 2 for group in groups)
    assert _most_groups(_plan(shuffled, Method.SEGMENTS)) > _most_groups(plan)


def test_rows_without_weights_in_the_layers_are_adjacent_when_ordered() -> None:
    headless = [resident for resident in RESIDENTS if not resident.body.rows]
    assert headless
    ordered = sorted([*BODIES, *headless, None], key=order_key)
    assert {each.key for each in ordered[: len(headless) + 1] if each} == {each.key for each in headless}
    assert not GatheredPlan([None, *headless], "cpu").groups
    assert not GatheredPlan([], "cpu").groups


def test_q_is_unfused_in_the_last_layer_when_only_first_tokens_are_computed() -> None:
    last = SPEC.layers - 1
    whole, first = (_plan(BODIES, Method.GATHERED, first_only=flag) for flag in (False, True))
    assert (last, QKV) in whole.groups
    assert (last, QKV) not in first.groups
    assert {(last, QKV[:1]), (last, QKV[1:])} <= set(first.groups)
    assert {place for place in whole.groups if place[0] < last} == {place for place in first.groups if place[0] < last}


def test_the_method_is_chosen_by_rank_rows_and_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def choose(device: str, rank: int, rows: int, tenants: int, *, row_bytes: int) -> Method:
        asked.append((device, rank, rows, tenants, row_bytes))
        return Method.SEGMENTS if rank == 24 else Method.GATHERED

    monkeypatch.setattr("hmi.adapters.maths.plan.choose_method", choose)
    one, other = RESIDENTS[2:4]  # rank 8 on all six sites
    plan = GatheredPlan([one, one, other], "cpu", row_bytes=128)
    assert set(asked) == {("cpu", 24, 3, 2, 128), ("cpu", 8, 3, 2, 128)}  # q, k and v are one product of 24
    (together,), (alone,) = plan.groups[0, QKV], plan.groups[0, (Site.O,)]
    assert together.spans == (slice(0, 2), slice(2, 3))
    assert alone.spans is None
