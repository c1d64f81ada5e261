"""The hottest rows of the published tree in device memory: what lies there need not be sent with a batch.

An arena of rows as they are stored: half as large as in bfloat16, and decoding costs a GPU nothing to speak of. For
every table of the tree in use an array says which slot a row has, and another how often it was wanted lately. Rows that
the arena lacks are put in the place of colder ones, a block at a time, by one copy from each table, on the stream of
those that fetch.

A slot is written only when every batch that was given it has ended: batches are numbered, and each slot knows the last
number that took it.

Where it pays. A row costs 2 H bytes of the link in bfloat16 when sent for each token, H + 4 when sent once for each
different window as it is stored (int8), and 8 bytes of index when it lies here. At H = 768 a batch of 16,384 tokens of
reviews and tweets (14,600 different windows) is 25.2 MB, 11.3 MB or 0.1 MB: 1.0, 0.45 or 0.005 ms at 25 GB/s (PCIe 4).
Copies go on beside computing, so this alone is time only for a device that runs such a batch as fast. The host has to
gather what is sent from all over the tables: 4.9 ms of a core for that batch with its search, 2.7 ms where all rows lie
in the arena. But text repeats itself little: the hottest 43,000 of 370,000 rows were 27 % of a batch's and saved the
host nothing. So an arena is worth its bytes on a GPU that has room for most of a tree (0.3 GB for those 370,000). On a
CPU it is host memory like the tables themselves: the same batch took 21 ms instead of 14, to decoded rows.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.engine.dequantise import decode_rows
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import CHUNK_ROWS, Table, entry_bytes
from hmi.spec import RowDtype

__all__ = ["HotRows", "HotStats"]

_BLOCK_ROWS = 1024  # most rows that one promotion copies
_LOOKED_AT = 4  # slots looked at for each of them
_HALVE_EVERY = 64  # batches
_MOST_USES = 255
_LEAST_USES = 2  # a row wanted only once is not worth a copy
_LEAD = 2  # uses by which a row must be ahead of the one that it replaces, or the two would take turns

_NOBODY = -1


@dataclass(frozen=True, slots=True)
class HotStats:
    """What the arena holds, and what it did since it was made.

    Attributes:
        slots: Rows that fit; entries: rows held; bytes: of the arena.
        lookups, hits: Rows of the tree that batches wanted, and those that were on the device.
        promotions: Rows that were copied in.
    """

    slots: int
    entries: int
    bytes: int
    lookups: int
    hits: int
    promotions: int


class _Resident:
    """A table of the tree in use.

    Attributes:
        slots: int32 `[entries]`, each row's slot plus one; 0 for a row that has none. Pages that no row of the
            arena belongs to take no memory.
        uses: uint8 `[entries]`, how often `find` was asked for the row, halved from time to time.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.slots = np.zeros(table.meta.entries, np.int32)
        self.uses = np.zeros(table.meta.entries, np.uint8)


class HotRows:
    """For one base model. `begin`, `find` and `promote` belong to whoever has the `turn`, the others to any thread.

    Whoever has it calls `begin`, `find` for each table that the batch has rows in, and `promote`, and only then
    lets go: more than one thread may fetch for a base model.

    Args:
        max_bytes: Of device memory, allocated here; 0 for none, and then nothing is ever found. Beside it, the host
            keeps 18 bytes for each slot and at most 5 for each entry of the tree.
    """

    def __init__(self, max_bytes: int, device: torch.device, row_dtype: RowDtype, hidden_size: int) -> None:
        self._row_bytes = entry_bytes(row_dtype, hidden_size) - 8  # it has no key
        slots = max_bytes // self._row_bytes
        int8 = row_dtype is RowDtype.INT8
        self._codes = torch.empty(slots, hidden_size, device=device, dtype=torch.int8 if int8 else torch.float16)
        self._scales = torch.empty(slots, device=device) if int8 else None
        self._tree: KnowledgeTree | None = None
        self._residents: list[_Resident] = []
        self._numbers: dict[Table, int] = {}
        self._owner = np.full(slots, _NOBODY, np.int16)  # which of the residents the slot's row is of
        self._owner_row = np.zeros(slots, np.int64)
        self._taken = np.zeros(slots, np.int64)  # the last batch that was given the slot
        self._hand = 0  # the slot that is looked at next
        self._batch = 0
        self._wanted: list[tuple[int, NDArray[np.int64]]] = []
        self._running: set[int] = set()
        self.turn = threading.Lock()
        self._lock = threading.Lock()  # of `_running`
        self._lookups = self._hits = self._promotions = 0

    def begin(self, tree: KnowledgeTree) -> int:
        """The number of a batch whose rows come from `tree`; `end` must get it, whatever becomes of the batch."""
        if tree is not self._tree:
            self._move_to(tree)
        self._batch += 1
        if self._batch % _HALVE_EVERY == 0:
            for resident in self._residents:
                resident.uses >>= 1
        self._wanted.clear()
        with self._lock:
            self._running.add(self._batch)
        return self._batch

    def end(self, batch: int) -> None:
        """Say that nothing on the device reads the batch's slots any more; twice is once."""
        with self._lock:
            self._running.discard(batch)

    def find(self, table: Table, index: NDArray[np.int64]) -> NDArray[np.int32]:
        """The arena's slot of each of a table's rows `[n]`, -1 where it is not there.

        The batch that began last may read these slots until it ends, when it has waited for what the stream on which
        all batches are fetched held at the end of `promote`.
        """
        number = self._numbers.get(table)
        if number is None or not len(self._owner):
            return np.full(len(index), -1, np.int32)
        resident = self._residents[number]
        uses = resident.uses[index]
        uses += uses < _MOST_USES
        resident.uses[index] = uses
        slots = resident.slots[index] - np.int32(1)
        there = slots >= 0
        self._taken[slots[there]] = self._batch
        self._lookups += len(index)
        self._hits += int(np.count_nonzero(there))
        hot = ~there & (uses >= _LEAST_USES)
        self._wanted.append((number, index[hot]))
        return slots

    def read(self, slots: Tensor, dtype: torch.dtype) -> Tensor:
        """The rows in slots that `find` gave, int64 `[n]`, decoded: `[n, H]` of `dtype`. For the device's threads."""
        return decode_rows(self._codes, self._scales, slots, dtype)

    def promote(self) -> int:
        """Copy the hottest of the rows that `find` did not find since `begin` into the arena, for the batches to come.

        Returns how many.
        """
        numbers, rows, uses = self._hottest()
        slots, worth = self._coldest(len(rows))
        count = min(len(rows), len(slots))
        # Uses descend and worth ascends: from the first row on that is not worth its copy, none is.
        count = int(np.count_nonzero(uses[:count] >= worth[:count] + _LEAD))
        if not count:
            return 0
        numbers, rows, slots = numbers[:count], rows[:count], slots[:count]
        self._free(slots)
        self._copy_in(numbers, rows, slots)
        self._own(slots, numbers, rows)
        self._promotions += count
        return count

    def stats(self) -> HotStats:
        return HotStats(
            slots=len(self._owner),
            entries=int(np.count_nonzero(self._owner != _NOBODY)),
            bytes=len(self._owner) * self._row_bytes,
            lookups=self._lookups,
            hits=self._hits,
            promotions=self._promotions,
        )

    def _hottest(self) -> tuple[NDArray[np.int16], NDArray[np.int64], NDArray[np.int16]]:
        """Rows to promote as (resident, row, uses), each once, the most used first."""
        by_number: dict[int, list[NDArray[np.int64]]] = defaultdict(list)
        for number, rows in self._wanted:
            by_number[number].append(rows)
        self._wanted.clear()
        wanted = {number: np.unique(np.concatenate(rows)) for number, rows in by_number.items()}
        numbers = np.repeat(np.array([*wanted], np.int16), [len(rows) for rows in wanted.values()])
        rows = np.concatenate([np.empty(0, np.int64), *wanted.values()])
        uses = [self._residents[number].uses[rows].astype(np.int16) for number, rows in wanted.items()]
        use = np.concatenate([np.empty(0, np.int16), *uses])
        best = np.argsort(-use, kind="stable")[:_BLOCK_ROWS]
        return numbers[best], rows[best], use[best]

    def _coldest(self, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
        """Slots that may be written, of the next few at which the hand points, and what each is worth; coldest first.

        A slot is worth its row's uses, an empty one less than any.
        """
        if not wanted:
            return np.empty(0, np.int64), np.empty(0, np.int16)
        count = min(len(self._owner), _LOOKED_AT * wanted)
        slots = (self._hand + np.arange(count)) % len(self._owner)
        self._hand = (self._hand + count) % len(self._owner)
        with self._lock:
            oldest = min(self._running, default=self._batch + 1)
        slots = slots[self._taken[slots] < oldest]
        owner, row = self._owner[slots], self._owner_row[slots]
        worth = np.full(len(slots), -_LEAD, np.int16)
        for number in np.unique(owner[owner != _NOBODY]).tolist():
            its = owner == number
            worth[its] = self._residents[number].uses[row[its]]
        order = np.argsort(worth, kind="stable")
        return slots[order], worth[order]

    def _copy_in(self, numbers: NDArray[np.int16], rows: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        for number in np.unique(numbers).tolist():
            its = numbers == number
            encoded = self._residents[number].table.encoded(rows[its])
            where = self._send(torch.from_numpy(slots[its]))
            self._codes.index_copy_(0, where, self._send(torch.from_numpy(encoded.rows)))
            if self._scales is not None and encoded.scales is not None:
                self._scales.index_copy_(0, where, self._send(torch.from_numpy(encoded.scales)))

    def _send(self, tensor: Tensor) -> Tensor:
        if not self._codes.is_cuda:
            return tensor
        return tensor.pin_memory().to(self._codes.device, non_blocking=True)

    def _free(self, slots: NDArray[np.int64]) -> None:
        owner, row = self._owner[slots], self._owner_row[slots]
        for number in np.unique(owner[owner != _NOBODY]).tolist():
            self._residents[number].slots[row[owner == number]] = 0
        self._owner[slots] = _NOBODY

    def _own(self, slots: NDArray[np.int64], numbers: NDArray[np.int16], rows: NDArray[np.int64]) -> None:
        self._owner[slots], self._owner_row[slots] = numbers, rows
        for number in np.unique(numbers).tolist():
            its = numbers == number
            self._residents[number].slots[rows[its]] = slots[its] + 1

    def _move_to(self, tree: KnowledgeTree) -> None:
        """Give the slots of rows that `tree` holds too to its tables, and leave the others to nobody.

        Batches on the tree before may still read them all: none is written before those have ended.
        """
        before, owner, owner_row = self._residents, self._owner.copy(), self._owner_row.copy()
        self._tree = tree
        self._residents = [_Resident(table) for table in tree.tables.values()]
        self._numbers = {resident.table: number for number, resident in enumerate(self._residents)}
        self._owner[:] = _NOBODY
        for old_number, old in enumerate(before):
            slots = np.flatnonzero(owner == old_number)
            slots = slots[np.argsort(owner_row[slots])]  # so its keys ascend
            for number in self._heirs(old.table):
                if not len(slots):
                    break
                slots = slots[~self._inherit(old, owner_row[slots], slots, number)]

    def _heirs(self, old: Table) -> Sequence[int]:
        """Tables that may hold a table's rows now, its own domain's first."""
        same = [number for number, each in enumerate(self._residents) if each.table.meta.function == old.meta.function]
        return sorted(same, key=lambda number: self._residents[number].table.meta.domain != old.meta.domain)

    def _inherit(
        self, old: _Resident, rows: NDArray[np.int64], slots: NDArray[np.int64], number: int
    ) -> NDArray[np.bool_]:
        """Hand a table's rows, and their slots, over to the resident `number` where it holds the same; which, `[n]`."""
        heir = self._residents[number]
        found = heir.table.find(old.table.keys[rows])
        held = np.flatnonzero(found >= 0)
        same = _same_rows(old.table, rows[held], heir.table, found[held])
        same &= heir.slots[found[held]] == 0  # a sibling may have had it in the arena too
        held = held[same]
        self._own(slots[held], np.full(len(held), number, np.int16), found[held])
        heir.uses[found[held]] = old.uses[rows[held]]
        handed = np.zeros(len(rows), bool)
        handed[held] = True
        return handed


def _same_rows(
    one: Table, one_rows: NDArray[np.int64], other: Table, other_rows: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether two tables store the same, `[n]`. Rows of one function and key are, unless two devices computed them."""
    same = np.empty(len(one_rows), bool)
    for start in range(0, len(same), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        left, right = one.encoded(one_rows[part]), other.encoded(other_rows[part])
        same[part] = (left.rows == right.rows).all(axis=1)
        if left.scales is not None and right.scales is not None:
            same[part] &= left.scales == right.scales
    return same
