from __future__ import annotations

import errno
import resource
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hmi.errors import NotFound, StorageFull, Transient
from hmi.storage import Storage
from tests.faulty_storage import FaultyFileSystem


class _LostPowerError(Exception):
    pass


@pytest.fixture(params=["disk", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A folder on disk, and what stands for a bucket: a file system that is not this machine's disk."""
    if request.param == "disk":
        return Storage(f"file://{tmp_path / 'root'}")
    return Storage(f"memory://{secrets.token_hex(8)}")


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow past 64 KiB, which ends a write as a full disk does: with an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def put(storage: Storage, path: str, content: bytes) -> None:
    with storage.create(path) as file:
        file.write(content)


def read(storage: Storage, path: str, offset: int = 0) -> bytes:
    with storage.open(path, offset) as file:
        return file.read()


def test_file_is_read_back_when_written(storage: Storage) -> None:
    put(storage, "a/b.txt", b"hello")
    assert read(storage, "a/b.txt") == b"hello"
    assert read(storage, "a/b.txt", offset=3) == b"lo"
    assert storage.size("a/b.txt") == 5
    assert storage.exists("a/b.txt")


def test_nothing_is_there_when_the_writer_fails(storage: Storage) -> None:
    with pytest.raises(_LostPowerError), storage.create("a/b.txt") as file:
        file.write(b"half")
        raise _LostPowerError
    assert not storage.exists("a/b.txt")
    assert storage.names("a") == []


def test_nothing_is_visible_while_a_file_is_written(storage: Storage) -> None:
    with storage.create("a/b.txt") as file:
        file.write(b"half")
        assert not storage.exists("a/b.txt")
        assert storage.names("a") == []
    assert storage.names("a") == ["b.txt"]


def test_old_file_stays_when_its_rewriting_fails(storage: Storage) -> None:
    put(storage, "a.txt", b"old")
    with pytest.raises(_LostPowerError), storage.create("a.txt") as file:
        file.write(b"new and longer")
        raise _LostPowerError
    assert read(storage, "a.txt") == b"old"


@pytest.mark.usefixtures("small_disk")
def test_full_disk_is_reported_and_leaves_nothing_when_writing(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    with pytest.raises(StorageFull, match=r"a/big\.bin"), storage.create("a/big.bin") as file:
        file.write(bytes(1024 * 1024))
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_only_a_full_disk_is_translated(number: int, tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    with pytest.raises(StorageFull), storage.create("a"):
        raise OSError(number, "no room")
    with pytest.raises(PermissionError), storage.create("a"):
        raise OSError(errno.EACCES, "not yours")


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../../up", "a//b", "a/"])
def test_path_is_refused_when_it_could_leave_the_root(storage: Storage, path: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        storage.exists(path)


def test_missing_file_is_not_found(storage: Storage) -> None:
    with pytest.raises(NotFound, match=r"gone\.txt"):
        storage.open("gone.txt")
    with pytest.raises(NotFound, match=r"gone\.txt"):
        storage.size("gone.txt")
    with pytest.raises(NotFound, match=r"gone\.txt"):
        storage.move("gone.txt", "elsewhere.txt")
    assert storage.names("gone") == []
    storage.delete("gone.txt")  # no error


def test_moved_file_has_its_new_path_alone(storage: Storage) -> None:
    put(storage, "a/old.txt", b"x")
    storage.move("a/old.txt", "b/c/new.txt")
    assert not storage.exists("a/old.txt")
    assert read(storage, "b/c/new.txt") == b"x"


def test_a_folder_is_deleted_with_its_contents(storage: Storage) -> None:
    put(storage, "a/b/c.txt", b"x")
    put(storage, "a/d.txt", b"y")
    storage.delete("a/b")
    assert storage.names("a") == ["d.txt"]


def test_names_are_sorted_and_hold_only_whole_files(storage: Storage) -> None:
    for name in ["b", "a", "kept.tmp"]:
        put(storage, f"x/{name}", b"")
    assert storage.names("x") == ["a", "b", "kept.tmp"]


def test_local_path_is_given_for_a_disk_alone(tmp_path: Path) -> None:
    assert Storage(f"file://{tmp_path}").local("a/b") == tmp_path / "a" / "b"
    assert Storage("memory://somewhere").local("a/b") is None


@pytest.fixture
def remote() -> Storage:
    """A storage that can be out of reach, with one file."""
    storage = Storage(f"faulty://{secrets.token_hex(8)}")
    put(storage, "a/b.txt", b"hello")
    return storage


@pytest.mark.parametrize(
    "ask",
    [
        lambda storage: put(storage, "a/new.txt", b"x"),
        lambda storage: storage.open("a/b.txt"),
        lambda storage: storage.size("a/b.txt"),
        lambda storage: storage.exists("a/b.txt"),
        lambda storage: storage.delete("a/b.txt"),
        lambda storage: storage.move("a/b.txt", "a/c.txt"),
        lambda storage: storage.names("a"),
    ],
    ids=["create", "open", "size", "exists", "delete", "move", "names"],
)
def test_outage_of_a_remote_storage_is_transient(remote: Storage, ask: Callable[[Storage], object]) -> None:
    with FaultyFileSystem.failing(), pytest.raises(Transient, match=r"fails at a.* \(OutageError\)$"):
        ask(remote)
    assert read(remote, "a/b.txt") == b"hello"


def test_outage_while_a_remote_file_is_read_is_transient(remote: Storage) -> None:
    with remote.open("a/b.txt") as file, FaultyFileSystem.failing(), pytest.raises(Transient, match=r"a/b\.txt"):
        file.read()


def test_a_writers_exception_passes_when_the_storage_is_remote(remote: Storage) -> None:
    with pytest.raises(_LostPowerError), remote.create("a/new.txt"):
        raise _LostPowerError


def test_full_remote_storage_is_full_and_no_outage(remote: Storage) -> None:
    with FaultyFileSystem.failing(OSError(errno.ENOSPC, "no room")), pytest.raises(StorageFull):
        put(remote, "a/new.txt", b"x")


def test_remote_file_is_read_line_by_line_and_from_anywhere(remote: Storage) -> None:
    content = b"".join(b"%d\n" % number for number in range(100_000))
    put(remote, "long.txt", content)
    with remote.open("long.txt") as file:
        assert list(file) == content.splitlines(keepends=True)
        assert file.seek(-3, 2) == len(content) - 3
        assert file.read(100) == content[-3:]
