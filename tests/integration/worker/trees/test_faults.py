"""Damaged tables and full disks: only their own rows are missing, none is wrong, and the reason is reported."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import structlog

from hmi.catalog import TreeStatus, nodes
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import Table
from tests.rebuilding import base_artifact, base_id, count, last_version, published
from tests.runtimes import run_waiting, running
from tests.worksite import Worksite, line, small_spec
from worker.runtime import Runtime
from worker.trees import rebuild


def cut_short(folder: Path) -> None:
    rows = folder / "rows.npy"
    rows.write_bytes(rows.read_bytes()[:-1])


def flip(folder: Path) -> None:
    rows = folder / "rows.npy"
    content = bytearray(rows.read_bytes())
    content[-3] ^= 0x10
    rows.write_bytes(content)


def alter_manifest(folder: Path) -> None:
    (folder / "table.json").write_text("{}")


def lose(folder: Path) -> None:
    (folder / "keys.npy").unlink()


def lose_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


DAMAGES = [cut_short, flip, alter_manifest, lose, lose_all]


@pytest.fixture
def films(site: Worksite, runtime: Runtime) -> str:
    site.add_domain("films")
    site.add_domain("news")
    site.add_model("acme", "films", domain="films")
    count(site, "films", [5, 9, 20])
    count(site, "news", [30, 31])
    rebuild(runtime, "base")
    return "films"


def check_rows(runtime: Runtime, site: Worksite, tree: KnowledgeTree, domain: str) -> None:
    """Check that every row in the tree is what the engine computes."""
    keys = np.unique(np.concatenate([table.keys for table in tree.tables.values()]))
    found = tree.lookup(domain, keys)
    fresh = runtime.engine.compute_rows(base_artifact(site), keys, fresh=True)
    np.testing.assert_allclose(found.rows[found.hit], fresh[found.hit], atol=0.02)
    assert found.hit.any()


@pytest.mark.parametrize("damage", DAMAGES)
def test_only_its_own_rows_are_missing_when_a_table_is_damaged(
    site: Worksite, runtime: Runtime, films: str, damage: Callable[[Path], None]
) -> None:
    damage(site.artifacts.folder(published(site).tables[films]))
    with running(site, name="other@there") as other, structlog.testing.capture_logs() as logs:
        other.load_bases()
        for _ in range(3):
            other.refresh_trees()
        assert [use.number for use in other.engine.stats().trees] == [1]
        tree = other.source.tree(base_artifact(site))
        assert set(tree.tables) == {"general", "news"}
        check_rows(other, site, tree, "films")
        check_rows(other, site, tree, "news")
        batch = site.submit("acme", [line("a", "acme/films", [[4, 5, 6]])])
        run_waiting(other, site)
        other.report()
    assert len(site.results("acme", batch).answers) == 1
    assert [each["domain"] for each in logs if each["event"] == "table_not_used"] == ["films"]
    with site.database.session(read_only=True) as session:
        (node,) = [each for each in nodes.list_nodes(session, 60) if each.name == "other@there"]
    assert list(node.stats["tables_not_used"][base_artifact(site)]) == ["films"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_table_is_whole_again_when_the_next_version_is_built(
    site: Worksite, runtime: Runtime, films: str, damage: Callable[[Path], None]
) -> None:
    damage(site.artifacts.folder(published(site).tables[films]))
    with running(site, name="other@there") as other:
        rebuild(other, "base")
        assert published(site).number == 2
        assert other.source.missing() == {}
        tree = other.source.tree(base_artifact(site))
    assert set(tree.tables) == {"general", "films", "news"}
    check_rows(runtime, site, tree, "films")
    report = last_version(site).report["domains"]
    assert (report["films"]["copied"], report["news"]["copied"]) == (0, 2)


def test_damage_is_not_copied_when_it_came_after_the_table_was_opened(
    site: Worksite, runtime: Runtime, films: str
) -> None:
    """The worker has the old table mapped, and the flipped byte with it."""
    runtime.load_bases()
    folder = site.artifacts.folder(published(site).tables[films])
    with (folder / "rows.npy").open("r+b") as file:
        file.seek(-3, 2)
        byte = file.read(1)[0]
        file.seek(-3, 2)
        file.write(bytes([byte ^ 0x10]))
    rebuild(runtime, "base")
    with running(site, name="other@there") as other:
        other.load_bases()
        assert other.source.missing() == {}
        check_rows(other, site, other.source.tree(base_artifact(site)), "films")


def test_no_row_is_read_again_when_a_worker_starts_and_nothing_changed(
    site: Worksite, runtime: Runtime, films: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    verify = Table.verify

    def watch(table: Table, *rest: object) -> None:
        read.append(table.meta.domain)
        verify(table)

    runtime.load_bases()
    monkeypatch.setattr(Table, "verify", watch)
    with running(site, name="other@there") as other:
        other.load_bases()
    assert read == []
    rows = site.artifacts.folder(published(site).tables[films]) / "rows.npy"
    rows.write_bytes(rows.read_bytes())
    with running(site, name="third@there") as third:
        third.load_bases()
    assert read == ["films"]


def test_old_version_keeps_serving_when_the_disk_is_full(
    site: Worksite, runtime: Runtime, films: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    count(site, films, [40])
    before = published(site)
    present = sorted(path for path in site.root.rglob("*") if path.is_file() and "verified" not in path.parts)
    for name in ("rows.npy", "keys.npy", "table.json", "manifest.json"):
        with monkeypatch.context() as patched:
            _fill_the_disk_at(patched, name)
            rebuild(runtime, "base")
        failed = last_version(site)
        assert failed.status is TreeStatus.FAILED
        assert "no room left to write" in (failed.error or "")
        assert published(site) == before
    runtime.refresh_trees()
    assert runtime.source.tree(base_artifact(site)).number == before.number
    left = sorted(path for path in site.root.rglob("*") if path.is_file() and "verified" not in path.parts)
    assert [path for path in left if path not in present and "builds" not in path.parts] == []
    rebuild(runtime, "base")
    assert published(site).number == before.number + 5


def _fill_the_disk_at(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)


def test_tree_is_used_without_a_table_when_it_cannot_be_read_again_and_again(
    site: Worksite, runtime: Runtime, films: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(site, name="other@there") as other:
        other.load_bases()
        count(site, films, [40])
        rebuild(runtime, "base")
        verify = Table.verify

        def fail(table: Table, *rest: object) -> None:
            if table.meta.domain == films:
                raise OSError(errno.EIO, "Input/output error")
            verify(table)

        monkeypatch.setattr(Table, "verify", fail)
        used = []
        for _ in range(7):
            other.refresh_trees()
            used.append(other.engine.stats().trees[0].number)
        assert used == [1, 1, 1, 1, 1, 2, 2]
        assert list(other.source.missing()[base_artifact(site)]) == [films]


def test_remote_table_is_fetched_again_when_the_copy_of_it_is_damaged(site: Worksite, tmp_path: Path) -> None:
    """Only the local copy is damaged, not the shared artifact."""
    bucket = Worksite(
        tmp_path / "remote",
        site.settings.database_url,
        site.settings.broker_url.get_secret_value(),
        storage_url=f"memory://{base_id(site)}",
    )
    artifact = bucket.artifacts.put({"spec.json": io.BytesIO(small_spec().to_json().encode())})
    assert artifact == base_artifact(site)
    with running(bucket) as runtime:
        runtime.load_bases()
        rebuild(runtime, "base")
    digest = published(site).tables["general"]
    flip(bucket.settings.resolved_cache_dir / digest)
    with running(bucket, name="other@there") as other:
        other.load_bases()
        assert other.source.missing() == {}
        check_rows(other, bucket, other.source.tree(artifact), "general")
    bucket.close()
