"""Builds and new versions beside running jobs: they are paced, record their progress, and delay no job."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from hmi.catalog import TreeStatus, TreeVersion, trees
from hmi.errors import StorageFull, Transient
from hmi.knowledge.plan import BuildProgress
from hmi.knowledge.store import Table
from tests.rebuilding import base_id, count, during_compute, last_version, published
from tests.runtimes import run_waiting, running
from tests.waiting import wait_until
from tests.worksite import Worksite, line
from worker.lifecycle import Pace
from worker.runtime import Runtime
from worker.trees import monitor as building
from worker.trees import rebuild, rebuild_all

MODEL = "acme/sentiment"


def test_every_part_of_a_build_is_paced_when_jobs_run(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    count(site, "general", [5, 9])
    rebuild(runtime, "base")
    count(site, "general", [20, 30])
    time, slept, stages = [0.0], [], set[str]()
    real_say = building.BuildMonitor._record_progress

    def say(watch: building.BuildMonitor, reached: BuildProgress) -> None:
        stages.add(reached.stage)
        real_say(watch, reached)

    def tick() -> float:
        time[0] += 0.001  # whatever happens between two looks at the clock takes so long
        return time[0]

    def sleep(seconds: float) -> None:
        time[0] += seconds
        slept.append(seconds)

    def pace(check: Callable[[], None] | None = None, share: float | None = None) -> Pace:
        return Pace(0.1, lambda: True, check or runtime.stopping.check, tick, sleep)

    monkeypatch.setattr(building.BuildMonitor, "_record_progress", say)
    monkeypatch.setattr(runtime, "pace", pace)
    rebuild(runtime, "base")
    assert published(site).number == 2
    assert stages == {"check", "plan", "compute", "write", "verify", "store"}
    assert len(slept) > len(stages)
    assert last_version(site).report["waited_seconds"] > 0


def test_progress_is_seen_when_a_build_runs_and_gone_when_it_is_published(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "RECORD_SECONDS", 0.0)
    seen: list[TreeVersion] = []
    real = building.BuildMonitor._record_progress

    def say(watch: building.BuildMonitor, reached: BuildProgress) -> None:
        real(watch, reached)
        seen.append(last_version(site))

    monkeypatch.setattr(building.BuildMonitor, "_record_progress", say)
    rebuild(runtime, "base")
    assert {version.status for version in seen} == {TreeStatus.BUILDING}
    said = [version.progress or {} for version in seen]
    last = {progress["stage"]: (progress["done"], progress["total"]) for progress in said}
    entries = last_version(site).report["domains"]["general"]["entries"]
    assert last["compute"] == last["write"] == (entries, entries)
    created = seen[0].created_at
    assert all(created - 1 <= progress["started_at"] <= created + 60 for progress in said)
    assert last_version(site).progress is None


def test_progress_stays_when_a_build_failed(site: Worksite, runtime: Runtime) -> None:
    def fail() -> None:
        raise StorageFull("no room left")

    during_compute(runtime, fail)
    rebuild(runtime, "base")
    failed = last_version(site)
    assert (failed.status, failed.error) == (TreeStatus.FAILED, "storage_full: no room left")
    assert (failed.progress or {})["stage"] == "plan"  # no row was done


def test_build_continues_when_its_progress_cannot_be_recorded(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise Transient("database is locked")

    monkeypatch.setattr(trees, "extend_build", fail)
    rebuild(runtime, "base")
    assert published(site).number == 1


def test_build_ends_when_the_worker_is_stopped(site: Worksite, runtime: Runtime) -> None:
    during_compute(runtime, runtime.stopping.set)
    rebuild(runtime, "base")
    failed = last_version(site)
    assert (failed.status, failed.error) == (TreeStatus.FAILED, "cancelled: the worker was stopped")


def test_jobs_run_on_the_old_version_when_the_tables_of_the_new_one_are_being_read(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild(runtime, "base")
    with running(site, name="other@there") as other:
        other.load_bases()
        count(site, "general", [5, 9])
        rebuild(runtime, "base")
        reading, resume = threading.Event(), threading.Event()
        verify = Table.verify

        def wait(table: Table, *rest: object) -> None:
            reading.set()
            assert resume.wait(60)
            verify(table)

        monkeypatch.setattr(Table, "verify", wait)
        refreshing = threading.Thread(target=other.refresh_trees)
        refreshing.start()
        assert reading.wait(60)
        batch = site.submit("acme", [line("a", MODEL)])
        run_waiting(other, site)
        assert len(site.results("acme", batch).answers) == 1
        assert [use.number for use in other.engine.stats().trees] == [1]
        resume.set()
        refreshing.join(60)
        assert [use.number for use in other.engine.stats().trees] == [2]


def test_a_version_is_not_used_when_it_was_rolled_back_while_it_was_read(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild(runtime, "base")
    with running(site, name="other@there") as other:
        other.load_bases()
        count(site, "general", [5, 9])
        rebuild(runtime, "base")
        verify = Table.verify

        def roll_back(table: Table, *rest: object) -> None:
            with site.database.session() as session:
                trees.rollback(session, base_id(site))
            verify(table)

        monkeypatch.setattr(Table, "verify", roll_back)
        other.refresh_trees()
        assert [use.number for use in other.engine.stats().trees] == [1]


def test_a_shard_reads_no_table_when_it_is_the_first_to_see_a_new_version(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild(runtime, "base")
    with running(site, name="other@there") as other:
        other.load_bases()
        count(site, "general", [5, 9])
        rebuild(runtime, "base")
        opened: list[str] = []
        monkeypatch.setattr(Table, "open", opened.append)
        batch = site.submit("acme", [line("a", MODEL)])
        run_waiting(other, site)
        assert len(site.results("acme", batch).answers) == 1
    assert opened == []


def test_workers_use_the_old_version_when_the_tree_is_rolled_back(site: Worksite, runtime: Runtime) -> None:
    keys = count(site, "general", [5])
    rebuild(runtime, "base")
    count(site, "general", [9])
    rebuild(runtime, "base")
    with running(site, name="other@there") as other:
        other.start()  # with its threads
        other.load_bases()
        assert [use.number for use in other.engine.stats().trees] == [2]
        with site.database.session() as session:
            assert trees.rollback(session, base_id(site)) == 1
        wait_until(lambda: [use.number for use in other.engine.stats().trees] == [1], 30, what="the rolled-back tree")
        assert other.source.missing() == {}
    rebuild_all(runtime)
    assert published(site).number == 1
    rebuild(runtime, "base")
    assert published(site).number == 3
    assert len(keys) == 1
