from __future__ import annotations

import io
import os
import secrets
import shutil
from pathlib import Path

import pytest

from hmi.artifacts import ArtifactFile, ArtifactStore, folder_digest
from hmi.errors import Corrupt, InvalidInput, NotFound, StorageFull
from hmi.storage import Storage

CONTENT = {"model.safetensors": b"weights", "spec.json": b"{}"}


@pytest.fixture(params=["disk", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "disk":
        return Storage(f"file://{tmp_path / 'root'}")
    return Storage(f"memory://{secrets.token_hex(8)}")


@pytest.fixture
def store(storage: Storage, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(storage, tmp_path / "cache")


@pytest.fixture
def bucket(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(Storage(f"memory://{secrets.token_hex(8)}"), tmp_path / "cache")


def put(store: ArtifactStore, content: dict[str, bytes]) -> str:
    return store.put({name: io.BytesIO(data) for name, data in content.items()})


def contents(folder: Path, names: dict[str, bytes]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def test_artifact_is_read_back_when_put(store: ArtifactStore) -> None:
    digest = put(store, CONTENT)
    assert contents(store.folder(digest, verify=True), CONTENT) == CONTENT
    assert [each.name for each in store.files(digest)] == sorted(CONTENT)
    assert ArtifactFile(
        "spec.json", 2, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    ) in store.files(digest)


def test_digest_names_the_content_whatever_the_order(store: ArtifactStore) -> None:
    digest = put(store, CONTENT)
    assert put(store, dict(reversed(CONTENT.items()))) == digest
    assert put(store, {**CONTENT, "spec.json": b"[]"}) != digest
    assert put(store, {"a": CONTENT["model.safetensors"], "spec.json": b"{}"}) != digest


def test_folder_and_streams_give_one_digest(store: ArtifactStore, tmp_path: Path) -> None:
    folder = tmp_path / "upload"
    (folder / "ignored").mkdir(parents=True)
    for name, data in CONTENT.items():
        (folder / name).write_bytes(data)
    assert store.put_folder(folder) == put(store, CONTENT) == folder_digest(folder)
    assert folder_digest(store.folder(folder_digest(folder))) == folder_digest(folder)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "manifest.json", "a\n", "é", "x" * 101])
def test_file_name_is_refused_when_it_is_not_plain(store: ArtifactStore, name: str) -> None:
    with pytest.raises(InvalidInput, match="file name"):
        put(store, {name: b"x"})


def test_artifact_is_refused_when_it_holds_nothing(store: ArtifactStore) -> None:
    with pytest.raises(InvalidInput, match="at least one file"):
        store.put({})


@pytest.mark.parametrize("digest", ["", "abc", "../../etc/passwd", "0" * 63, "0" * 64 + "\n", "G" * 64])
def test_an_invalid_digest_is_refused(store: ArtifactStore, digest: str) -> None:
    with pytest.raises(InvalidInput, match="not an artifact digest"):
        store.folder(digest)


def test_unknown_artifact_is_not_found(store: ArtifactStore) -> None:
    with pytest.raises(NotFound, match="0000"):
        store.folder("0" * 64)


def test_deleted_artifact_is_not_found_and_can_be_put_again(store: ArtifactStore) -> None:
    digest = put(store, CONTENT)
    store.folder(digest)
    store.delete(digest)
    store.delete(digest)  # no error
    with pytest.raises(NotFound, match=digest):
        store.folder(digest)
    assert put(store, CONTENT) == digest
    assert contents(store.folder(digest), CONTENT) == CONTENT


def test_nothing_is_left_when_a_put_fails(storage: Storage, store: ArtifactStore) -> None:
    class _Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise StorageFull("the upload's disk is full")

    with pytest.raises(StorageFull):
        store.put({"a": io.BytesIO(b"x"), "b": _Broken()})
    assert storage.names("staging") == []
    assert storage.names("artifacts") == []


@pytest.mark.parametrize("damage", [b"weight", b""])
def test_a_truncated_file_is_named_and_a_second_put_repairs_it(tmp_path: Path, damage: bytes) -> None:
    store = ArtifactStore(Storage(f"file://{tmp_path}"), tmp_path / "cache")
    digest = put(store, CONTENT)
    (store.folder(digest) / "model.safetensors").write_bytes(damage)
    with pytest.raises(Corrupt, match=rf"model\.safetensors is {len(damage)} bytes long instead of 7"):
        store.folder(digest)
    assert put(store, CONTENT) == digest
    assert contents(store.folder(digest, verify=True), CONTENT) == CONTENT


def test_missing_file_is_named(tmp_path: Path) -> None:
    store = ArtifactStore(Storage(f"file://{tmp_path}"), tmp_path / "cache")
    digest = put(store, CONTENT)
    (store.folder(digest) / "spec.json").unlink()
    with pytest.raises(Corrupt, match=r"spec\.json is missing"):
        store.folder(digest)


def test_changed_byte_is_found_when_verifying(tmp_path: Path) -> None:
    store = ArtifactStore(Storage(f"file://{tmp_path}"), tmp_path / "cache")
    digest = put(store, CONTENT)
    (store.folder(digest) / "model.safetensors").write_bytes(b"Weights")
    store.folder(digest)  # sizes alone do not tell
    with pytest.raises(Corrupt, match=r"model\.safetensors does not match its checksum"):
        store.folder(digest, verify=True)


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json"])
def test_a_second_put_repairs_an_artifact_when_a_byte_was_changed(tmp_path: Path, name: str) -> None:
    store = ArtifactStore(Storage(f"file://{tmp_path}"), tmp_path / "cache")
    digest = put(store, CONTENT)
    changed = store.folder(digest) / name
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")
    assert put(store, CONTENT) == digest
    assert contents(store.folder(digest, verify=True), CONTENT) == CONTENT


def test_changed_manifest_is_found(tmp_path: Path) -> None:
    store = ArtifactStore(Storage(f"file://{tmp_path}"), tmp_path / "cache")
    digest = put(store, CONTENT)
    manifest = store.folder(digest) / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"spec", b"spek"))
    with pytest.raises(Corrupt, match="manifest"):
        store.folder(digest)


def test_remote_artifact_is_downloaded_once(bucket: ArtifactStore) -> None:
    digest = put(bucket, CONTENT)
    folder = bucket.folder(digest)
    inode = (folder / "spec.json").stat().st_ino
    assert bucket.folder(digest) == folder
    assert (folder / "spec.json").stat().st_ino == inode


def test_local_copy_is_downloaded_again_when_it_was_truncated(bucket: ArtifactStore) -> None:
    digest = put(bucket, CONTENT)
    (bucket.folder(digest) / "model.safetensors").write_bytes(b"weig")
    assert contents(bucket.folder(digest), CONTENT) == CONTENT


def test_remote_damage_is_found_when_downloading(tmp_path: Path) -> None:
    storage = Storage(f"memory://{secrets.token_hex(8)}")
    bucket = ArtifactStore(storage, tmp_path / "cache")
    digest = put(bucket, CONTENT)
    with storage.create(f"artifacts/{digest[:2]}/{digest}/model.safetensors") as file:
        file.write(b"Weights")
    with pytest.raises(Corrupt, match=r"model\.safetensors does not match its checksum"):
        bucket.folder(digest)
    assert list((tmp_path / "cache").iterdir()) == []


def test_only_the_named_files_of_a_part_are_downloaded(store: ArtifactStore, tmp_path: Path) -> None:
    digest = put(store, CONTENT)
    part = store.part(digest, {"spec.json", "aliases.npy"})
    assert (part / "spec.json").read_bytes() == CONTENT["spec.json"]
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("model.safetensors"))
    assert store.part(digest, set(CONTENT)) == part
    assert contents(part, CONTENT) == CONTENT
    store.delete(digest)
    assert not (part / "spec.json").exists()
    with pytest.raises(NotFound):
        store.part(digest, {"spec.json"})


def test_a_part_is_downloaded_again_when_it_was_truncated(bucket: ArtifactStore) -> None:
    digest = put(bucket, CONTENT)
    part = bucket.part(digest, {"spec.json"})
    (part / "spec.json").write_bytes(b"")
    assert (bucket.part(digest, {"spec.json"}) / "spec.json").read_bytes() == CONTENT["spec.json"]


def test_a_part_is_removed_when_it_was_unused_for_a_day(bucket: ArtifactStore) -> None:
    first, second = put(bucket, CONTENT), put(bucket, {**CONTENT, "spec.json": b"[]"})
    old, used = (bucket.part(digest, {"spec.json"}) for digest in (first, second))
    for part in (old, used):
        os.utime(part, (0, 0))
    bucket.part(second, {"spec.json"})  # not fetched, but used
    bucket.part(put(bucket, {"spec.json": b"{ }"}), {"spec.json"})
    assert not old.exists()
    assert used.exists()


def test_copies_are_removed_when_their_artifacts_were_deleted_elsewhere(bucket: ArtifactStore, tmp_path: Path) -> None:
    kept, gone = put(bucket, {"a": b"1"}), put(bucket, {"a": b"2"})
    folders = [bucket.folder(digest) for digest in (kept, gone)]
    elsewhere = ArtifactStore(bucket._storage, tmp_path / "another machine's cache")
    elsewhere.delete(gone)
    assert bucket.prune() == [gone]
    assert [folder.exists() for folder in folders] == [True, False]
    assert bucket.prune() == []


def test_unfinished_downloads_are_removed_a_day_later(bucket: ArtifactStore) -> None:
    digest = put(bucket, CONTENT)
    cached = bucket.folder(digest)
    left, recent = (cached.with_name(f".{digest}.{token}.tmp") for token in ("00000000", "11111111"))
    for folder in (left, recent):
        shutil.copytree(cached, folder)
    os.utime(left, (0, 0))
    bucket.prune()
    assert [folder.exists() for folder in (cached, left, recent)] == [True, False, True]


def test_artifact_is_announced_before_it_appears(store: ArtifactStore) -> None:
    announced: list[str] = []

    def announce(digest: str) -> None:
        announced.append(digest)
        with pytest.raises(NotFound):
            store.files(digest)
        assert list(store.unfinished().values()) == ["base-7"]

    read: list[int] = []
    streams = {name: io.BytesIO(data) for name, data in CONTENT.items()}
    digest = store.put(streams, owner="base-7", announce=announce, progress=read.append)
    assert announced == [digest]
    assert sum(read) == sum(map(len, CONTENT.values()))
    assert store.unfinished() == {}


def test_nothing_is_left_when_the_announcement_is_refused(store: ArtifactStore, storage: Storage) -> None:
    def refuse(digest: str) -> None:
        raise Corrupt(digest)

    with pytest.raises(Corrupt) as refused:
        store.put({name: io.BytesIO(data) for name, data in CONTENT.items()}, announce=refuse)
    with pytest.raises(NotFound):
        store.files(refused.value.message)
    assert storage.names("staging") == []


def test_an_unfinished_artifact_is_removed_when_it_is_abandoned(store: ArtifactStore, storage: Storage) -> None:
    for name in ("base_1-7.00ff/rows.npy", "base_1-8.00ff/rows.npy", "00ff/rows.npy"):
        with storage.create(f"staging/{name}") as file:
            file.write(b"half")
    assert store.unfinished() == {"00ff": "", "base_1-7.00ff": "base_1-7", "base_1-8.00ff": "base_1-8"}
    store.abandon("base_1-7.00ff")
    assert store.unfinished() == {"00ff": "", "base_1-8.00ff": "base_1-8"}
