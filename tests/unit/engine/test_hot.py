from __future__ import annotations

import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hmi.engine import hot
from hmi.engine.hot import HotRows
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import Table, TableMeta, encode, write_table
from hmi.spec import RowDtype
from tests.unit.knowledge.tables import HIDDEN, PARENTS, as_keys, make_tree, rows_of

CPU = torch.device("cpu")
DTYPE = torch.bfloat16
ROW_BYTES = HIDDEN + 4


class Batches:
    """Plays the engine: looks rows up, and checks when a batch ends that its slots still hold what they held."""

    def __init__(self, hot_rows: HotRows) -> None:
        self.hot = hot_rows
        self.running: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def run(self, tree: KnowledgeTree, wanted: dict[str, list[int]], *, promote: bool = True) -> int:
        number = self.hot.begin(tree)
        slots, rows = [], []
        for domain, numbers in wanted.items():
            table = tree.tables[domain]
            index = np.array(numbers, np.int64) % table.meta.entries
            found = self.hot.find(table, index)
            slots.append(found[found >= 0])
            rows.append(table.read(index[found >= 0]))
        if promote:
            self.hot.promote()
        taken = torch.from_numpy(np.concatenate(slots).astype(np.int64))
        self.running[number] = taken, torch.from_numpy(np.concatenate(rows)).to(DTYPE)
        return number

    def end(self, number: int) -> int:
        slots, expected = self.running.pop(number)
        assert torch.equal(self.hot.read(slots, DTYPE), expected)
        self.hot.end(number)
        return len(slots)


def hot_rows(slots: int) -> HotRows:
    return HotRows(slots * ROW_BYTES, CPU, RowDtype.INT8, HIDDEN)


def held(hot_rows: HotRows, tree: KnowledgeTree, domain: str) -> list[int]:
    """Keys of a table whose rows are in the arena; looking changes nothing."""
    for resident in hot_rows._residents:
        if resident.table is tree.tables[domain]:
            keys: list[int] = resident.table.keys[resident.slots > 0].tolist()
            return keys
    return []


def consistent(hot_rows: HotRows) -> bool:
    """Slots and their owners name each other."""
    owned = 0
    for number, resident in enumerate(hot_rows._residents):
        rows = np.flatnonzero(resident.slots)
        slots = resident.slots[rows] - 1
        if not (hot_rows._owner[slots] == number).all() or not (hot_rows._owner_row[slots] == rows).all():
            return False
        owned += len(rows)
    return owned == hot_rows.stats().entries


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> list[KnowledgeTree]:
    """Three versions, among which n-grams come, go and move from one domain to another."""
    folder = tmp_path_factory.mktemp("trees")
    held_by = [
        {"general": range(30), "movies": range(100, 140), "products": range(120, 150)},
        {"general": range(20, 40), "movies": range(90, 120), "reviews": range(120, 150)},
        {"general": range(5, 30), "movies": range(100, 140), "news": range(3)},
    ]
    return [
        make_tree(folder / str(number), {domain: as_keys(keys) for domain, keys in each.items()}, number=number)
        for number, each in enumerate(held_by, start=1)
    ]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60)), max_size=25)),
        st.tuples(st.just("end"), st.integers(0, 3)),
        st.tuples(st.just("swap"), st.integers(0, 2)),
    ),
    max_size=40,
)


@given(slots=st.integers(0, 24), halve_every=st.sampled_from([2, 64]), steps=STEPS)
def test_a_batch_reads_its_own_rows_until_it_ends_whatever_happens_beside_it(
    trees: list[KnowledgeTree],
    slots: int,
    halve_every: int,
    steps: list[tuple[str, int | list[tuple[int, int]]]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hot, "_HALVE_EVERY", halve_every)
        patch.setattr(hot, "_BLOCK_ROWS", 4)
        batches, tree = Batches(hot_rows(slots)), trees[0]
        for step, what in steps:
            if step == "swap" and isinstance(what, int):
                tree = trees[what]
            elif step == "end" and isinstance(what, int) and batches.running:
                batches.end(sorted(batches.running)[what % len(batches.running)])
            elif isinstance(what, list):
                domains, wanted = list(tree.tables), dict[str, list[int]]()
                for which, row in what:
                    wanted.setdefault(domains[which], []).append(row)
                batches.run(tree, {"general": [], **wanted})
                assert consistent(batches.hot)
        for number in sorted(batches.running):
            batches.end(number)
        stats = batches.hot.stats()
        assert stats.hits <= stats.lookups
        assert stats.entries <= stats.slots == slots


def test_rows_that_are_wanted_again_come_to_the_device(trees: list[KnowledgeTree]) -> None:
    batches = Batches(hot_rows(8))
    found = [batches.end(batches.run(trees[0], {"movies": [3, 1, 3], "general": [turn]})) for turn in range(4)]
    assert found == [0, 0, 3, 3]
    assert held(batches.hot, trees[0], "movies") == [101, 103]
    assert held(batches.hot, trees[0], "general") == []
    stats = batches.hot.stats()
    assert (stats.slots, stats.entries, stats.bytes) == (8, 2, 8 * ROW_BYTES)
    assert (stats.lookups, stats.hits, stats.promotions) == (16, 6, 2)


def test_a_row_that_two_domains_want_is_copied_once(trees: list[KnowledgeTree]) -> None:
    hot_, general = hot_rows(8), trees[0].tables["general"]
    for _ in range(2):
        number = hot_.begin(trees[0])
        for _ in range(3):
            hot_.find(general, np.array([5, 6]))
        hot_.promote()
        hot_.end(number)
    assert hot_.stats().promotions == hot_.stats().entries == 2


def test_hotter_rows_take_the_place_of_colder_ones(trees: list[KnowledgeTree]) -> None:
    batches = Batches(hot_rows(2))
    for _ in range(3):
        batches.end(batches.run(trees[0], {"movies": [0, 1]}))
    assert held(batches.hot, trees[0], "movies") == [100, 101]
    for _ in range(3):  # as hot as the two that are there: no reason to change
        batches.end(batches.run(trees[0], {"movies": [2, 3]}))
    assert held(batches.hot, trees[0], "movies") == [100, 101]
    for _ in range(3):
        batches.end(batches.run(trees[0], {"movies": [2, 3]}))
    assert held(batches.hot, trees[0], "movies") == [102, 103]


def test_what_was_hot_long_ago_gives_way(trees: list[KnowledgeTree], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "_HALVE_EVERY", 4)
    batches = Batches(hot_rows(1))
    for _ in range(400):
        batches.end(batches.run(trees[0], {"movies": [0] * 3}))
    turns = 0
    while held(batches.hot, trees[0], "movies") == [100]:
        batches.end(batches.run(trees[0], {"movies": [1]}))
        turns += 1
        assert turns < 20


def test_no_slot_is_written_while_a_batch_may_read_it(trees: list[KnowledgeTree]) -> None:
    batches = Batches(hot_rows(2))
    for _ in range(2):
        batches.end(batches.run(trees[0], {"movies": [0, 1]}))
    reading = batches.run(trees[0], {"movies": [0, 1]})
    for _ in range(20):  # much hotter by now, but there is no room while the first batch runs
        batches.end(batches.run(trees[0], {"movies": [2, 3]}))
    assert held(batches.hot, trees[0], "movies") == [100, 101]
    assert batches.end(reading) == 2
    batches.end(batches.run(trees[0], {"movies": [2, 3]}))
    assert held(batches.hot, trees[0], "movies") == [102, 103]


def test_rows_that_stay_in_the_tree_keep_their_slots_when_it_is_replaced(trees: list[KnowledgeTree]) -> None:
    before, after = trees[:2]
    batches = Batches(hot_rows(32))
    # 25 stays in general, 5 goes; 101 stays in movies; 125 is hoisted from products to reviews.
    for _ in range(2):
        batches.end(batches.run(before, {"general": [25, 5], "movies": [1], "products": [5]}))
    copied = batches.hot.stats().promotions
    reading = batches.run(before, {"general": [25, 5]}, promote=False)
    number = batches.run(after, {"general": [5], "movies": [11], "reviews": [5]}, promote=False)
    assert held(batches.hot, after, "general") == [25]
    assert held(batches.hot, after, "movies") == [101]
    assert held(batches.hot, after, "reviews") == [125]
    assert batches.end(number) == 3
    assert batches.end(reading) == 2
    assert batches.hot.stats().promotions == copied
    assert consistent(batches.hot)


def test_a_row_of_two_siblings_stays_with_each_or_has_one_slot_where_their_parent_has_it_now(tmp_path: Path) -> None:
    both = {"movies": as_keys([1, 2]), "products": as_keys([1, 3])}
    apart, again = make_tree(tmp_path / "apart", both), make_tree(tmp_path / "again", both, number=2)
    hoisted = make_tree(tmp_path / "hoisted", {"reviews": as_keys([1])}, number=3)
    batches = Batches(hot_rows(8))
    for _ in range(2):
        batches.end(batches.run(apart, {"products": [0]}))
    batches.end(batches.run(again, {"movies": [0]}))
    assert (held(batches.hot, again, "movies"), held(batches.hot, again, "products")) == ([], [1])
    batches.end(batches.run(again, {"movies": [0]}))
    assert (held(batches.hot, again, "movies"), held(batches.hot, again, "products")) == ([1], [1])
    batches.end(batches.run(hoisted, {"reviews": [0]}))
    assert (held(batches.hot, hoisted, "reviews"), batches.hot.stats().entries) == ([1], 1)
    assert consistent(batches.hot)


def test_rows_are_as_hot_in_a_new_tree_as_in_the_one_before(tmp_path: Path) -> None:
    first, second = (make_tree(tmp_path / str(n), {"general": as_keys(range(9))}, number=n) for n in (1, 2))
    batches = Batches(hot_rows(1))
    for _ in range(10):
        batches.end(batches.run(first, {"general": [0]}))
    for _ in range(5):
        batches.end(batches.run(second, {"general": [1]}))
    assert held(batches.hot, second, "general") == [0]


def test_batches_are_numbered_on_when_there_were_billions(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"general": as_keys(range(9))})
    batches = Batches(hot_rows(4))
    batches.hot._batch = 2**31 - 3
    for _ in range(5):
        batches.end(batches.run(tree, {"general": [0, 1]}))
    assert held(batches.hot, tree, "general") == [0, 1]


def test_counts_stay_at_their_highest_when_a_row_is_wanted_all_the_time(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"general": as_keys(range(9))})
    hot_, table = hot_rows(1), tree.tables["general"]
    number = hot_.begin(tree)
    for _ in range(257):
        hot_.find(table, np.array([0]))
    hot_.find(table, np.array([1, 1]))
    hot_.find(table, np.array([1]))
    hot_.promote()
    hot_.end(number)
    assert held(hot_, tree, "general") == [0]


def test_a_row_that_was_computed_anew_and_differs_is_not_served_from_the_arena(tmp_path: Path) -> None:
    keys = as_keys(range(4))

    def tree(number: int, rows: NDArray[np.float32], function: str = "f" * 64) -> KnowledgeTree:
        meta = TableMeta("general", function, RowDtype.INT8, HIDDEN, len(keys))
        write_table(tmp_path / str(number), meta, keys, encode(rows, RowDtype.INT8))
        tables = {"general": Table.open(tmp_path / str(number))}
        return KnowledgeTree(number, PARENTS, tables, RowDtype.INT8, HIDDEN)

    rows = rows_of(keys)
    changed = rows.copy()
    changed[1] *= 2  # another scale alone
    changed[2] = -changed[2]
    batches, first = Batches(hot_rows(8)), tree(1, rows)
    for _ in range(2):
        batches.end(batches.run(first, {"general": [0, 1, 2, 3]}))
    second = tree(2, changed)
    batches.end(batches.run(second, {"general": [0, 1, 2, 3]}, promote=False))
    assert held(batches.hot, second, "general") == [0, 3]
    other = tree(3, changed, "e" * 64)
    batches.end(batches.run(other, {"general": [0, 1, 2, 3]}, promote=False))
    assert held(batches.hot, other, "general") == []


def test_float16_rows_and_tables_without_rows_are_served_too(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"general": as_keys(range(9)), "news": as_keys([])}, RowDtype.FLOAT16)
    batches = Batches(HotRows(4 * 2 * HIDDEN, CPU, RowDtype.FLOAT16, HIDDEN))
    nothing = np.empty(0, np.int64)
    for expected in (0, 0, 2):
        number = batches.run(tree, {"general": [1, 8]})
        assert len(batches.hot.find(tree.tables["news"], nothing)) == 0
        assert batches.end(number) == expected


def test_an_unknown_table_has_no_rows_on_the_device(trees: list[KnowledgeTree]) -> None:
    hot_ = hot_rows(4)
    hot_.begin(trees[0])
    assert hot_.find(trees[1].tables["movies"], np.array([1, 2])).tolist() == [-1, -1]


def test_lanes_that_run_beside_each_other_see_their_own_rows(trees: list[KnowledgeTree]) -> None:
    batches, fetched = hot_rows(24), queue.Queue[tuple[int, torch.Tensor, torch.Tensor] | None](3)
    lanes = 3

    def lane() -> int:
        count = 0
        while (batch := fetched.get(timeout=30)) is not None:
            number, slots, expected = batch
            for _ in range(5):
                assert torch.equal(batches.read(slots, DTYPE), expected)
            batches.end(number)
            count += len(slots)
        return count

    random = np.random.default_rng(4)
    with ThreadPoolExecutor(lanes) as pool:
        running = [pool.submit(lane) for _ in range(lanes)]
        try:
            for turn in range(300):
                tree = trees[turn // 40 % len(trees)]
                number = batches.begin(tree)
                table = tree.tables["movies"]
                index = np.minimum(random.geometric(0.08, 30) + turn // 10, table.meta.entries) - 1
                slots = batches.find(table, index)
                there = slots >= 0
                batches.promote()
                expected = torch.from_numpy(table.read(index[there])).to(DTYPE)
                fetched.put((number, torch.from_numpy(slots[there].astype(np.int64)), expected), timeout=30)
        finally:
            for _ in running:
                fetched.put(None, timeout=30)
        seen = sum(each.result() for each in running)
    assert seen == batches.stats().hits > 1000
    assert batches.stats().promotions > 24  # the arena was too small for all


def test_threads_that_fetch_by_turns_each_get_their_own_rows(trees: list[KnowledgeTree]) -> None:
    hot_rows_ = hot_rows(12)

    def fetch(seed: int) -> int:
        batches, draw = Batches(hot_rows_), np.random.default_rng(seed)
        hits = 0
        for number in range(200):
            wanted = {"general": draw.integers(0, 20, 15).tolist()}
            with hot_rows_.turn:
                batch = batches.run(trees[number // 50 % 3], wanted)
            hits += batches.end(batch)
        return hits

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(fetch, range(2)))
    assert consistent(hot_rows_)
