from __future__ import annotations

import errno
import gc
import hashlib
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.errors import Corrupt, StorageFull
from hmi.knowledge.store import Table, TableMeta, encode, find_first, round_trip, write_table
from hmi.spec import RowDtype
from tests.unit.knowledge.tables import FUNCTION, HIDDEN, as_keys, make_table, row_index, rows_of

DTYPES = pytest.mark.parametrize("dtype", list(RowDtype))
KEYS = as_keys(range(10, 400, 3))
ALIASES = as_keys(range(500, 505))


@DTYPES
def test_a_table_gives_back_what_was_written(tmp_path: Path, dtype: RowDtype) -> None:
    table = make_table(tmp_path, "movies", KEYS, dtype)
    assert table.meta == TableMeta("movies", FUNCTION, dtype, HIDDEN, len(KEYS))
    np.testing.assert_array_equal(table.keys, KEYS)
    index = np.array([3, 0, 3, len(KEYS) - 1])
    np.testing.assert_array_equal(table.read(index), round_trip(rows_of(KEYS[index]), dtype))
    table.verify()


@DTYPES
def test_an_empty_table_holds_nothing(tmp_path: Path, dtype: RowDtype) -> None:
    table = make_table(tmp_path, "movies", as_keys([]), dtype)
    table.verify()
    assert row_index(table, KEYS).tolist() == [-1] * len(KEYS)
    assert table.read(np.empty(0, np.int64)).shape == (0, HIDDEN)


@given(st.sets(st.integers(0, 60)), st.lists(st.integers(0, 60)))
def test_find_equals_a_dict(tmp_path_factory: pytest.TempPathFactory, held: set[int], asked: list[int]) -> None:
    table = make_table(tmp_path_factory.mktemp("table"), "movies", as_keys(held))
    expected = {key: i for i, key in enumerate(sorted(held))}
    assert row_index(table, np.array(asked, np.uint64)).tolist() == [expected.get(key, -1) for key in asked]


def test_a_table_gives_back_its_aliases(tmp_path: Path) -> None:
    aliases = as_keys(range(11, 400, 3))
    table = make_table(tmp_path, "movies", KEYS, aliases=aliases, alias_function="a" * 64)
    assert (table.meta.entries, table.meta.aliases, table.meta.alias_function) == (len(KEYS), len(aliases), "a" * 64)
    np.testing.assert_array_equal(table.aliases, aliases)
    asked = as_keys(range(420))
    np.testing.assert_array_equal(table.is_alias(asked), np.isin(asked, aliases))
    assert (row_index(table, aliases) == -1).all()
    assert table.bytes == sum(path.stat().st_size for path in table.folder.glob("*.npy"))
    table.warm()
    table.verify()


def test_a_table_may_hold_nothing_but_aliases(tmp_path: Path) -> None:
    table = make_table(tmp_path, "movies", as_keys([]), aliases=KEYS, alias_function="a" * 64)
    table.verify()
    assert table.is_alias(KEYS).all()


def test_a_table_without_aliases_has_no_file_for_them(tmp_path: Path) -> None:
    table = make_table(tmp_path, "movies", KEYS)
    assert not (table.folder / "aliases.npy").exists()
    assert table.aliases.dtype == np.uint64
    assert not table.is_alias(KEYS).any()


def test_find_first_prefers_the_first_table(tmp_path: Path) -> None:
    tables = [
        make_table(tmp_path, "a", as_keys([1, 2])),
        make_table(tmp_path, "b", as_keys([])),
        make_table(tmp_path, "c", as_keys([2, 3])),
    ]
    places = find_first(tables, as_keys([1, 2, 3, 4]))
    assert places.table.tolist() == [0, 0, 2, -1]
    assert places.row.tolist() == [0, 1, 1, 0]


def test_equal_tables_are_equal_files_when_written_in_other_blocks(tmp_path: Path) -> None:
    meta = TableMeta("movies", FUNCTION, RowDtype.INT8, HIDDEN, len(KEYS))
    encoded = encode(rows_of(KEYS), RowDtype.INT8)
    write_table(tmp_path / "whole", meta, KEYS, encoded)
    write_table(tmp_path / "parts", meta, KEYS, (encode(rows_of(part), RowDtype.INT8) for part in [KEYS[:7], KEYS[7:]]))
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == ["keys.npy", "rows.npy", "scales.npy", "table.json"]
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


@DTYPES
def test_bytes_are_key_row_and_scale_and_little_more(tmp_path: Path, dtype: RowDtype) -> None:
    table = make_table(tmp_path, "movies", KEYS, dtype)
    on_disk = sum(path.stat().st_size for path in table.folder.glob("*.npy"))
    assert table.bytes == on_disk
    assert 0 <= on_disk - len(KEYS) * table.meta.entry_bytes <= 3 * 128


def test_arrays_cannot_be_written_to(tmp_path: Path) -> None:
    table = make_table(tmp_path, "movies", KEYS)
    with pytest.raises(ValueError, match="read-only"):
        table.keys[0] = 1


def test_rows_outlive_the_files_and_the_table(tmp_path: Path) -> None:
    table = make_table(tmp_path, "movies", KEYS)
    keys = table.keys
    for path in table.folder.iterdir():
        path.unlink()
    np.testing.assert_array_equal(table.read(np.array([5])), round_trip(rows_of(KEYS[5:6]), RowDtype.INT8))
    del table
    gc.collect()
    np.testing.assert_array_equal(keys, KEYS)


# What is not whole is refused


def edit_json(change: Callable[[dict[str, Any]], object], *, sign: bool) -> Callable[[Path], object]:
    """Changes `table.json`; with `sign` its own checksum is made to fit again."""

    def edit(folder: Path) -> None:
        body = json.loads((folder / "table.json").read_bytes())
        change(body)
        if sign:
            del body["checksum"]
            body["checksum"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        (folder / "table.json").write_text(json.dumps(body))

    return edit


def cut(name: str, left: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:left])


def replace_array(name: str, change: Callable[[Any], Any]) -> Callable[[Path], object]:
    """Puts another array there and signs `table.json` for it, as a wrong writer would."""

    def replace(folder: Path) -> None:
        path = folder / name
        np.save(path, change(np.load(path)))
        listed = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        edit_json(lambda body: body["files"].update({name: listed}), sign=True)(folder)

    return replace


@pytest.mark.parametrize(
    ("harm", "file", "reason"),
    [
        (cut("keys.npy", 500), "keys.npy", "500 bytes long instead of"),
        (cut("rows.npy", 1000), "rows.npy", "1000 bytes long instead of"),
        (cut("scales.npy", 0), "scales.npy", "0 bytes long instead of"),
        (cut("table.json", 100), "table.json", "not JSON"),
        (cut("table.json", 0), "table.json", "not JSON"),
        (lambda f: (f / "table.json").write_bytes(b"\xff\xfe"), "table.json", "not JSON"),
        (lambda f: (f / "table.json").write_text("[1]"), "table.json", "altered"),
        (lambda f: (f / "rows.npy").unlink(), "rows.npy", "missing"),
        (lambda f: (f / "table.json").unlink(), "table.json", "missing"),
        (edit_json(lambda b: b.update(domain="news"), sign=False), "table.json", "altered"),
        (edit_json(lambda b: b.update(function="0" * 64), sign=False), "table.json", "altered"),
        (edit_json(lambda b: b.pop("checksum"), sign=False), "table.json", "altered"),
        (edit_json(lambda b: b.update(format=1), sign=True), "table.json", "format 1"),
        (edit_json(lambda b: b.update(row_dtype="int4"), sign=True), "table.json", "int4"),
        (edit_json(lambda b: b.update(entries=-1), sign=True), "table.json", "-1 entries"),
        (edit_json(lambda b: b.pop("entries"), sign=True), "table.json", "entries"),
        (edit_json(lambda b: b["files"].pop("scales.npy"), sign=True), "table.json", "scales.npy"),
        (edit_json(lambda b: b["files"].pop("aliases.npy"), sign=True), "table.json", "aliases.npy"),
        (edit_json(lambda b: b.update(aliases=0), sign=True), "table.json", "aliases.npy"),
        (edit_json(lambda b: b.update(aliases=-1), sign=True), "table.json", "-1 aliases"),
        (edit_json(lambda b: b.update(alias_function=None), sign=True), "table.json", "refer to no function"),
        (edit_json(lambda b: b.update(aliases=3), sign=True), "aliases.npy", r"uint64 \(5,\) instead of uint64 \(3,\)"),
        (cut("aliases.npy", 140), "aliases.npy", "140 bytes long instead of"),
        (lambda f: (f / "aliases.npy").unlink(), "aliases.npy", "missing"),
        (edit_json(lambda b: b.update(entries=7), sign=True), "keys.npy", r"uint64 \(130,\) instead of uint64 \(7,\)"),
        (edit_json(lambda b: b.update(hidden_size=4), sign=True), "rows.npy", "instead of int8"),
        (replace_array("rows.npy", lambda a: a.astype(np.float16)), "rows.npy", "float16 .* instead of int8"),
        (replace_array("rows.npy", lambda a: a.astype(np.uint8)), "rows.npy", "uint8 .* instead of int8"),
        (replace_array("rows.npy", np.asfortranarray), "rows.npy", "instead of int8"),
        (replace_array("keys.npy", lambda a: a.astype(">u8")), "keys.npy", "instead of uint64"),
        (replace_array("scales.npy", lambda a: a.astype(np.float64)), "scales.npy", "float64"),
        (lambda f: _overwrite(f / "rows.npy", 0, b"junk"), "rows.npy", "header"),
        (lambda f: _overwrite(f / "rows.npy", 12, b"junk"), "rows.npy", "header"),
    ],
)
def test_open_names_file_and_reason_when_a_table_is_not_whole(
    tmp_path: Path, harm: Callable[[Path], object], file: str, reason: str
) -> None:
    folder = make_table(tmp_path, "movies", KEYS, aliases=ALIASES, alias_function=FUNCTION).folder
    harm(folder)
    with pytest.raises(Corrupt, match=f"{re.escape(str(folder / file))}.*{reason}"):
        Table.open(folder)


@pytest.mark.parametrize("name", ["keys.npy", "rows.npy", "scales.npy", "aliases.npy"])
def test_verify_finds_one_flipped_bit(tmp_path: Path, name: str) -> None:
    table = make_table(tmp_path, "movies", KEYS, aliases=ALIASES, alias_function=FUNCTION)
    path = table.folder / name
    last = path.read_bytes()[-1]
    _overwrite(path, path.stat().st_size - 1, bytes([last ^ 1]))
    with pytest.raises(Corrupt, match=f"{name} does not match its checksum"):
        Table.open(table.folder).verify()


@pytest.mark.parametrize("name", ["keys.npy", "aliases.npy"])
def test_verify_finds_keys_out_of_order(tmp_path: Path, name: str) -> None:
    folder = make_table(tmp_path, "movies", KEYS, aliases=ALIASES, alias_function=FUNCTION).folder
    replace_array(name, lambda keys: keys[::-1].copy())(folder)
    with pytest.raises(Corrupt, match=f"{name}: its keys do not ascend"):
        Table.open(folder).verify()


def test_verify_finds_aliases_of_keys_that_have_a_row(tmp_path: Path) -> None:
    folder = make_table(tmp_path, "movies", KEYS, aliases=ALIASES, alias_function=FUNCTION).folder
    replace_array("aliases.npy", lambda aliases: KEYS[: len(aliases)])(folder)
    with pytest.raises(Corrupt, match=r"aliases.npy: it holds keys that have a row"):
        Table.open(folder).verify()


def test_verify_reports_a_missing_file(tmp_path: Path) -> None:
    table = make_table(tmp_path, "movies", KEYS)
    (table.folder / "rows.npy").unlink()
    with pytest.raises(Corrupt, match=r"rows.npy is missing"):
        table.verify()


# What is not fit to write is not written


def test_nothing_opens_when_writing_stopped_half_way(tmp_path: Path) -> None:
    def blocks() -> Any:
        yield encode(rows_of(KEYS[:10]), RowDtype.INT8)
        raise RuntimeError("stopped")

    meta = TableMeta("movies", FUNCTION, RowDtype.INT8, HIDDEN, len(KEYS))
    with pytest.raises(RuntimeError, match="stopped"):
        write_table(tmp_path / "movies", meta, KEYS, blocks())
    assert sorted(path.name for path in (tmp_path / "movies").iterdir()) == ["keys.npy"]
    with pytest.raises(Corrupt, match=r"table.json is missing"):
        Table.open(tmp_path / "movies")


def test_a_full_disk_is_storage_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hmi.storage.os.fsync", fsync)
    with pytest.raises(StorageFull, match=r"keys.npy"):
        make_table(tmp_path, "movies", KEYS)


@pytest.mark.parametrize(
    ("keys", "rows", "dtype"),
    [
        (KEYS[::-1], KEYS, RowDtype.INT8),
        (np.repeat(KEYS[: len(KEYS) // 2], 2), KEYS, RowDtype.INT8),
        (KEYS[:-1], KEYS, RowDtype.INT8),
        (KEYS, KEYS[:-1], RowDtype.INT8),
        (KEYS, KEYS, RowDtype.FLOAT16),
    ],
)
def test_write_refuses_rows_that_do_not_match_the_meta(tmp_path: Path, keys: Any, rows: Any, dtype: RowDtype) -> None:
    meta = TableMeta("movies", FUNCTION, RowDtype.INT8, HIDDEN, len(KEYS))
    with pytest.raises(ValueError, match="table of movies"):
        write_table(tmp_path / "movies", meta, keys, encode(rows_of(rows), dtype))
    assert not (tmp_path / "movies" / "table.json").exists()


@pytest.mark.parametrize("aliases", [ALIASES[::-1], ALIASES[:-1], as_keys([*KEYS[:4], 500])])
def test_write_refuses_aliases_that_do_not_match_the_meta(tmp_path: Path, aliases: Any) -> None:
    meta = TableMeta("movies", FUNCTION, RowDtype.INT8, HIDDEN, len(KEYS), len(ALIASES), FUNCTION)
    with pytest.raises(ValueError, match=r"table of movies: .*alias"):
        write_table(tmp_path / "movies", meta, KEYS, encode(rows_of(KEYS), RowDtype.INT8), aliases)
    assert not (tmp_path / "movies").exists()


def test_a_tables_folder_may_have_any_name(tmp_path: Path) -> None:
    make_table(tmp_path / "a folder %20 with [brackets]*", "movies", KEYS).verify()


def test_many_threads_read_one_table(tmp_path: Path) -> None:
    table = make_table(tmp_path, "movies", KEYS)
    start = threading.Barrier(4)

    def read(seed: int) -> bool:
        start.wait(timeout=30)
        random = np.random.default_rng(seed)
        for _ in range(50):
            keys = random.choice(KEYS, 40)
            if not np.array_equal(table.read(row_index(table, keys)), round_trip(rows_of(keys), RowDtype.INT8)):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))


def _overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
