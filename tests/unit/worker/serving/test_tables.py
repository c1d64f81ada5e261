"""Tables are opened once for all callers, and an open table is returned without waiting."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hmi.artifacts import ArtifactStore
from hmi.errors import Corrupt, NotFound
from hmi.knowledge import ngrams
from hmi.knowledge.store import Table, TableMeta, encode, write_table
from hmi.spec import RowDtype
from hmi.storage import Storage
from worker.serving.tables import TableCache, VerifiedFiles


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(Storage(f"file://{tmp_path / 'storage'}"), tmp_path / "cache")


def put(store: ArtifactStore, folder: Path, size: int) -> str:
    meta = TableMeta("general", "f", RowDtype.INT8, 4, size)
    write_table(folder, meta, ngrams.unigrams(size), encode(np.ones((size, 4), np.float32), RowDtype.INT8))
    return store.put_folder(folder)


@pytest.fixture
def artifacts(store: ArtifactStore, tmp_path: Path) -> list[str]:
    return [put(store, tmp_path / f"table-{size}", size) for size in (3, 5)]


def test_a_table_is_read_once_when_many_threads_open_it(
    store: ArtifactStore, artifacts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = TableCache(store, tmp_path / "notes")
    reading, resume = threading.Event(), threading.Event()
    read: list[str] = []
    verify = Table.verify

    def wait(table: Table, *rest: object) -> None:
        read.append(table.folder.name)
        reading.set()
        assert resume.wait(30)
        verify(table)

    ready = cache.open(artifacts[1])
    monkeypatch.setattr(Table, "verify", wait)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cache.open, artifacts[0]) for _ in range(4)]
        assert reading.wait(30)
        assert cache.open(artifacts[1]) is ready
        assert cache.find(artifacts[0]) is None
        resume.set()
        assert len({id(each.result(30)) for each in asked}) == 1
    assert len(read) == 1


def test_a_table_is_dropped_when_it_is_not_kept(store: ArtifactStore, artifacts: list[str], tmp_path: Path) -> None:
    cache = TableCache(store, tmp_path / "notes")
    first, second = (cache.open(each) for each in artifacts)
    cache.keep([artifacts[0]])
    assert cache.open(artifacts[0]) is first
    assert cache.find(artifacts[1]) is None
    assert second.meta.entries == 5  # a dropped table stays readable


def test_no_lock_is_kept_when_an_opening_has_ended(store: ArtifactStore, artifacts: list[str], tmp_path: Path) -> None:
    cache = TableCache(store, tmp_path / "notes")
    for _ in range(2):
        cache.open(artifacts[0])
    store.delete(artifacts[1])
    with pytest.raises(NotFound):
        cache.open(artifacts[1])
    assert not cache._opening


def test_opening_fails_again_and_again_when_a_table_is_gone_or_damaged(
    store: ArtifactStore, artifacts: list[str], tmp_path: Path
) -> None:
    cache = TableCache(store, tmp_path / "notes")
    store.delete(artifacts[0])
    rows = store.folder(artifacts[1]) / "rows.npy"
    rows.write_bytes(rows.read_bytes()[:-1] + b"\x05")
    for _ in range(2):
        with pytest.raises(NotFound):
            cache.open(artifacts[0])
        with pytest.raises(Corrupt, match=r"rows\.npy"):
            cache.open(artifacts[1])


def test_reading_ends_when_the_pace_raises(store: ArtifactStore, artifacts: list[str], tmp_path: Path) -> None:
    cache = TableCache(store, tmp_path / "notes")

    def stop(size: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        cache.open(artifacts[0], stop)
    assert cache.open(artifacts[0]).meta.entries == 3


@pytest.mark.parametrize("change", ["content", "time", "place", "another file", "age", "note"])
def test_files_are_not_trusted_when_they_changed(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "table"
    folder.mkdir()
    rows = folder / "rows.npy"
    rows.write_bytes(b"rows")
    verified = VerifiedFiles(tmp_path / "notes")
    verified.note("a" * 64, VerifiedFiles.stamp(folder))
    assert verified.holds("a" * 64, VerifiedFiles.stamp(folder))
    assert not verified.holds("b" * 64, VerifiedFiles.stamp(folder))
    (note,) = (tmp_path / "notes").iterdir()
    if change == "content":
        rows.write_bytes(b"rowS")
    elif change == "time":
        os.utime(rows, ns=(0, 0))
    elif change == "place":
        rows.rename(folder / "old")
        rows.write_bytes(b"rows")
        (folder / "old").unlink()
    elif change == "another file":
        (folder / "more").touch()
    elif change == "age":
        note.write_text(note.read_text().replace('"at": 1', '"at": 0'))
    else:
        note.write_text("{")
    assert not verified.holds("a" * 64, VerifiedFiles.stamp(folder))
    verified.forget("a" * 64)
    assert list((tmp_path / "notes").iterdir()) == []


def test_a_table_is_opened_when_the_disk_is_too_full_for_a_note(
    store: ArtifactStore, artifacts: list[str], tmp_path: Path
) -> None:
    (tmp_path / "notes").touch()  # no folder can be made here
    assert TableCache(store, tmp_path / "notes").open(artifacts[0]).meta.entries == 3
