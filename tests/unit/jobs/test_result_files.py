from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from hmi.catalog import Shard
from hmi.errors import Corrupt
from hmi.jobs import NotRun, assemble
from hmi.jobs.result_files import Assembled
from hmi.storage import Storage

LINES = [
    json.dumps({"custom_id": f"id-{index}", "method": "POST", "url": "/v1/classify", "body": {}}).encode() + b"\n"
    for index in range(6)
]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(f"file://{tmp_path}")
    put(storage, "in", b"".join(LINES) + b"\n\n")
    return storage


def put(storage: Storage, path: str, data: bytes) -> None:
    with storage.create(path) as file:
        file.write(data)


def get(storage: Storage, path: str) -> bytes:
    with storage.open(path) as file:
        return file.read()


def shard(storage: Storage, first: int, lines: int, *, output: bytes = b"", error: bytes = b"") -> Shard:
    paths = []
    for name, data in (("out", output), ("err", error)):
        paths.append(f"shards/{first}.{name}" if data else None)
        if data:
            put(storage, f"shards/{first}.{name}", data)
    offset = sum(map(len, LINES[:first]))
    length = sum(map(len, LINES[first : first + lines]))
    output_path, error_path = paths
    return Shard(
        first_line=first, lines=lines, offset=offset, length=length, output_path=output_path, error_path=error_path
    )


def join(storage: Storage, shards: list[Shard], not_run: NotRun | None = None) -> Assembled:
    return assemble(
        storage,
        batch_id="batch_1",
        input_path="in",
        total_lines=6,
        shards=shards,
        not_run=not_run,
        output_path="results/out",
        error_path="results/err",
    )


def test_files_are_joined_in_line_order(storage: Storage) -> None:
    shards = [
        shard(storage, 0, 2, output=b"0\n1\n"),
        shard(storage, 2, 3, output=b"2\n", error=b"3\n4\n"),
        shard(storage, 5, 1, error=b"5\n"),
    ]
    result = join(storage, shards)
    assert result.output is not None
    assert result.error is not None
    assert get(storage, result.output.path) == b"0\n1\n2\n"
    assert get(storage, result.error.path) == b"3\n4\n5\n"
    assert (result.output.bytes, result.not_run) == (6, 0)
    assert result.output.sha256 == hashlib.sha256(b"0\n1\n2\n").hexdigest()
    assert join(storage, shards) == result  # rerunnable


def test_no_file_is_written_when_it_would_be_empty(storage: Storage) -> None:
    all_good = join(storage, [shard(storage, 0, 6, output=b"x\n")])
    assert all_good.output is not None
    assert all_good.error is None
    assert not storage.exists("results/err")


@pytest.mark.parametrize("ran", [[], [0], [2], [4], [0, 4], [0, 2, 4]])
def test_each_line_that_did_not_run_gets_its_error_line(storage: Storage, ran: list[int]) -> None:
    shards = [shard(storage, first, 2, error=b'{"custom_id": "ran"}\n' * 2) for first in ran]
    result = join(storage, shards, NotRun.CANCELLED)
    assert result.error is not None
    lines = [json.loads(raw) for raw in get(storage, result.error.path).splitlines()]
    expected = ["ran" if index // 2 * 2 in ran else f"id-{index}" for index in range(6)]
    assert [each["custom_id"] for each in lines] == expected
    assert {each["error"]["code"] for each in lines if each["custom_id"] != "ran"} <= {"batch_cancelled"}
    assert result.not_run == 6 - 2 * len(ran)


def test_a_gap_is_refused_when_nothing_explains_it(storage: Storage) -> None:
    with pytest.raises(Corrupt, match="4 lines have no result"):
        join(storage, [shard(storage, 2, 2, output=b"x\n")])


def test_overlapping_shards_are_refused(storage: Storage) -> None:
    with pytest.raises(Corrupt, match="two shards"):
        join(storage, [shard(storage, 0, 4, output=b"x\n"), shard(storage, 3, 3, output=b"x\n")])
    with pytest.raises(Corrupt, match="reach line"):
        join(storage, [shard(storage, 0, 9, output=b"x\n")])


def test_nothing_is_visible_when_a_shard_file_is_gone(storage: Storage) -> None:
    with pytest.raises(Exception, match="nothing is stored"):
        join(storage, [Shard(first_line=0, lines=6, offset=0, length=1, output_path="gone")])
    assert not storage.exists("results/out")
