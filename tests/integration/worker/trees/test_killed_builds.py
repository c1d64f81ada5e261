"""Builders that die or are suspended: the old version keeps serving, the reason is recorded, and no garbage stays."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from sqlalchemy import update

from hmi.catalog import TreeStatus, TreeVersion, trees
from hmi.knowledge import Keys
from tests.rebuilding import base_artifact, base_id, count, last_version, published
from tests.runtimes import running
from tests.waiting import wait_until
from tests.worksite import Worksite
from worker.lifecycle import BuildPoint
from worker.lifecycle.failpoints import PAUSE, VARIABLE
from worker.runtime import Runtime
from worker.trees import collect_garbage, rebuild

ROOT = Path(__file__).parents[4]
# A process of its own for each: what depends on the database is tested on both in `catalog/trees/test_garbage.py`.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@contextlib.contextmanager
def builder(site: Worksite, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    variables = {key: value for key, value in os.environ.items() if not key.startswith("HMI_")}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.builder", "base"],
        cwd=ROOT,
        env=variables | site.environment() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def let_leases_lapse(site: Worksite) -> None:
    with site.database.session() as session:
        session.execute(update(TreeVersion).where(TreeVersion.lease_until.is_not(None)).values(lease_until=1.0))


def artifacts(site: Worksite) -> set[str]:
    """Digests of all artifacts that are complete or partial tables."""
    root = site.storage.local("artifacts")
    assert root is not None
    return {path.parent.name for path in root.glob("*/*/table.json")}


def unfinished(site: Worksite) -> list[str]:
    return site.storage.names("staging")


def folders(site: Worksite) -> list[str]:
    return sorted(path.name for path in site.settings.resolved_cache_dir.glob("builds/*/*"))


@pytest.fixture
def films(site: Worksite, runtime: Runtime) -> str:
    """A domain with a first version of the tree, and counts for a second one."""
    site.add_domain("films")
    count(site, "films", [5, 9])
    rebuild(runtime, "base")
    count(site, "films", [20, 30, 40])
    return "films"


@on_sqlite
@pytest.mark.parametrize("point", [point for point in BuildPoint if point is not BuildPoint.PUBLISHED])
def test_old_version_keeps_serving_when_a_builder_is_killed_at(
    site: Worksite, runtime: Runtime, films: str, point: BuildPoint
) -> None:
    first = published(site)
    kept = artifacts(site)
    with builder(site, **{VARIABLE: point}) as process:
        assert process.wait(120) == -signal.SIGKILL
    assert published(site).number == 1
    assert last_version(site).status is TreeStatus.BUILDING
    if point is BuildPoint.STORED:
        assert artifacts(site) > kept
    if point is BuildPoint.STORING:
        assert unfinished(site)
    let_leases_lapse(site)
    collect_garbage(runtime)
    failed = last_version(site)
    assert failed.status is TreeStatus.FAILED
    assert (failed.error or "").startswith("the builder's lease ran out")
    if point is BuildPoint.HALF_COMPUTED:
        assert "at compute" in (failed.error or "")
    assert artifacts(site) == kept
    assert unfinished(site) == []
    assert runtime.source.tree(base_artifact(site)).number == 1
    rebuild(runtime, "base")
    second = published(site)
    assert second.number == 3
    assert second.tables != first.tables
    tree = runtime.source.tree(base_artifact(site))
    assert tree.lookup(films, count(site, films, [5, 9, 20, 30, 40])).hit.all()
    assert artifacts(site) == set(first.tables.values()) | set(second.tables.values())
    assert folders(site) == []


@on_sqlite
def test_new_version_serves_when_its_builder_is_killed_after_publishing(
    site: Worksite, runtime: Runtime, films: str
) -> None:
    with builder(site, **{VARIABLE: BuildPoint.PUBLISHED}) as process:
        assert process.wait(120) == -signal.SIGKILL
    assert published(site).number == 2
    assert folders(site) == ["2"]
    collect_garbage(runtime)
    assert folders(site) == []
    runtime.refresh_trees()
    assert runtime.source.tree(base_artifact(site)).number == 2


def test_stale_builder_changes_nothing_when_it_resumes(site: Worksite, runtime: Runtime, films: str) -> None:
    """It is suspended, its lease expires, and it resumes when the next version is published."""
    with builder(site, **{PAUSE: BuildPoint.WRITTEN}) as sleeper:
        wait_until(
            lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_STOPPED, 120, what="the builder's sleep"
        )
        assert folders(site) == ["2"]
        let_leases_lapse(site)
        rebuild(runtime, "base")
        assert published(site).number == 3
        tables = artifacts(site)
        sleeper.send_signal(signal.SIGCONT)
        assert sleeper.wait(120) == 0
    assert published(site).number == 3
    with site.database.session(read_only=True) as session:
        errors = {version.number: version.error for version in trees.versions(session, base_id(site))}
    assert (errors[2] or "").startswith("the builder's lease ran out")
    collect_garbage(runtime)
    assert artifacts(site) == tables
    assert unfinished(site) == []
    assert folders(site) == []


@on_sqlite
def test_computed_rows_are_reused_when_a_builder_was_killed(site: Worksite, runtime: Runtime, films: str) -> None:
    with builder(site, **{VARIABLE: BuildPoint.WRITTEN}) as process:
        assert process.wait(120) == -signal.SIGKILL
    let_leases_lapse(site)
    asked: list[bool] = []
    real = runtime.engine.compute_rows

    def compute(base: str, keys: Keys, delta: str | None = None, *, fresh: bool = False) -> NDArray[np.float32]:
        asked.append(fresh)
        return real(base, keys, delta, fresh=fresh)

    runtime.engine.compute_rows = compute  # type: ignore[method-assign]
    rebuild(runtime, "base")
    assert published(site).number == 3
    assert set(asked) == {True}  # for the sample alone


@on_sqlite
def test_folders_of_other_builds_are_kept_when_one_is_deleted(site: Worksite, runtime: Runtime, films: str) -> None:
    site.add_base("other")
    with running(site, name="other@there") as other, site.database.session() as session:
        trees.begin_build(session, base_id(site), 60)
    mine = site.settings.resolved_cache_dir / "builds" / base_id(site) / "2"
    mine.mkdir(parents=True)
    gone = site.settings.resolved_cache_dir / "builds" / "base_gone" / "1"
    gone.mkdir(parents=True)
    collect_garbage(other)
    assert mine.exists()
    assert not gone.exists()
