"""Rebuilding trees: what is published, kept when a build fails, and deleted."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from sqlalchemy import update

from hmi.artifacts import ArtifactStore
from hmi.catalog import TreeStatus, TreeVersion, bases, database_time, trees
from hmi.errors import NotFound
from hmi.knowledge import Keys
from hmi.knowledge.store import Table
from tests.rebuilding import base_artifact, base_id, count, during_compute, published
from tests.runtimes import run_waiting, running
from tests.worksite import Worksite, line, small_spec
from worker.runtime import Runtime
from worker.trees import rebuild, rebuild_all

MODEL = "acme/sentiment"


@pytest.fixture
def movies(site: Worksite) -> str:
    site.add_domain("reviews")
    site.add_domain("movies", "reviews")
    return "movies"


def test_tree_holds_the_counted_ngrams_when_it_is_rebuilt(site: Worksite, runtime: Runtime, movies: str) -> None:
    keys = count(site, movies, [5, 9, 20])
    rebuild(runtime, "base")
    tree = published(site)
    assert tree.number == 1
    assert set(tree.tables) == {"general", "movies"}
    opened = runtime.source.tree(base_artifact(site))
    found = opened.lookup(movies, np.sort(keys))
    assert found.hit.all()
    np.testing.assert_allclose(found.rows, runtime.engine.compute_rows(base_artifact(site), np.sort(keys)), atol=0.02)
    with site.database.session(read_only=True) as session:
        (version,) = trees.versions(session, base_id(site))
    assert version.report["domains"]["general"]["entries"] == small_spec().vocab_size
    assert version.report["domains"]["movies"]["computed"] == 3


def test_worker_looks_up_in_the_new_tree_when_one_is_published(site: Worksite, runtime: Runtime, movies: str) -> None:
    shared, alone = [5, 6, 7, 8, 9], [20, 21, 22]
    for tenant in ("acme", "beta", "gamma"):  # as many as a shared table wants
        if tenant != "acme":
            site.add_tenant(tenant)
        site.add_model(tenant, "films", domain=movies)
        site.submit(tenant, [line("a", f"{tenant}/films", [shared])])
    site.submit("acme", [line("a", "acme/films", [alone, alone])])
    with running(site, name="other@there") as other:
        run_waiting(other, site)
        assert [use.number for use in other.engine.stats().trees] == [0]
        other.flusher.flush()
        rebuild(runtime, "base")
        other.refresh_trees()
        site.submit("acme", [line("a", "acme/films", [shared, alone])])
        run_waiting(other, site)
        assert [use.number for use in other.engine.stats().trees] == [1]
        other.flusher.flush()
    with site.database.session(read_only=True) as session:
        before, after = (trees.hit_counts(session, base_id(site), number)[movies] for number in (0, 1))
        (version,) = trees.versions(session, base_id(site))
    assert (before.lookups, before.hits) == (21, 0)
    assert (after.lookups, after.hits) == (8, 5)
    assert version.report["domains"]["movies"]["waiting"] == 3


def test_new_domain_is_served_when_it_is_younger_than_the_tree(site: Worksite, runtime: Runtime) -> None:
    rebuild(runtime, "base")
    site.submit("acme", [line("a", MODEL)])
    run_waiting(runtime, site)
    site.add_domain("news")
    site.add_model("acme", "news", domain="news")
    batch = site.submit("acme", [line("a", "acme/news")])
    run_waiting(runtime, site)
    assert len(site.results("acme", batch).answers) == 1


def test_rows_are_copied_when_the_next_version_keeps_them(site: Worksite, runtime: Runtime, movies: str) -> None:
    count(site, movies, [5, 9])
    rebuild(runtime, "base")
    first = published(site)
    count(site, movies, [30])
    rebuild(runtime, "base")
    second = published(site)
    assert second.number == 2
    assert second.tables["general"] == first.tables["general"]
    with site.database.session(read_only=True) as session:
        report = trees.versions(session, base_id(site))[0].report["domains"]
    assert (report["general"]["computed"], report["movies"]["copied"], report["movies"]["computed"]) == (0, 2, 1)


def test_old_tree_keeps_serving_when_a_build_fails(
    site: Worksite, runtime: Runtime, movies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild(runtime, "base")
    count(site, movies, [5, 9])
    with monkeypatch.context() as patched:

        def fail(*_: object, **__: object) -> np.ndarray:
            raise MemoryError

        patched.setattr(runtime.engine, "compute_rows", fail)
        rebuild(runtime, "base")
    assert published(site).number == 1
    with site.database.session(read_only=True) as session:
        failed = trees.versions(session, base_id(site))[0]
    assert (failed.number, failed.status) == (2, TreeStatus.FAILED)
    assert failed.error is not None
    assert "MemoryError" in failed.error
    rebuild(runtime, "base")
    assert published(site).number == 3


def test_wrong_rows_are_not_published_when_a_sample_differs(
    site: Worksite, runtime: Runtime, movies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runtime.engine.compute_rows

    def drift(base: str, keys: Keys, delta: str | None = None, *, fresh: bool = False) -> np.ndarray:
        return np.asarray(real(base, keys) * (-1 if fresh else 1))

    monkeypatch.setattr(runtime.engine, "compute_rows", drift)
    rebuild(runtime, "base")
    with site.database.session(read_only=True) as session:
        (version,) = trees.versions(session, base_id(site))
        assert trees.published(session, base_id(site)) is None
    assert version.status is TreeStatus.FAILED


def test_wrong_rows_are_computed_again_when_their_sample_differed(
    site: Worksite, runtime: Runtime, movies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runtime.engine.compute_rows
    with monkeypatch.context() as patched:
        answers = iter([-1])
        patched.setattr(
            runtime.engine, "compute_rows", lambda *asked, **how: np.asarray(real(*asked, **how) * next(answers, 1))
        )
        rebuild(runtime, "base")
    with site.database.session(read_only=True) as session:
        assert trees.published(session, base_id(site)) is None
    rebuild(runtime, "base")
    assert published(site).number == 2


def test_all_rows_are_computed_when_a_table_of_the_old_tree_is_gone(
    site: Worksite, runtime: Runtime, movies: str
) -> None:
    count(site, movies, [5, 9])
    rebuild(runtime, "base")
    site.artifacts.delete(published(site).tables[movies])
    with running(site, name="other@there") as other:
        rebuild(other, "base")
    assert published(site).number == 2
    site.artifacts.folder(published(site).tables[movies])
    with site.database.session(read_only=True) as session:
        second, first = (each.report["domains"][movies] for each in trees.versions(session, base_id(site)))
    assert (second["added"], second["dropped"], second["bytes_before"]) == (2, first["entries"], first["bytes"])


def test_one_build_runs_when_two_begin(site: Worksite, runtime: Runtime, movies: str) -> None:
    numbers: list[int] = []

    def ask_again() -> None:
        with running(site, name="other@there") as other:
            rebuild(other, "base")
        with site.database.session(read_only=True) as session:
            numbers.extend(version.number for version in trees.versions(session, base_id(site)))

    during_compute(runtime, ask_again)
    rebuild(runtime, "base")
    assert numbers == [1]
    assert published(site).number == 1


def test_build_publishes_nothing_when_its_lease_was_lost(site: Worksite, runtime: Runtime, movies: str) -> None:
    def be_failed() -> None:
        with site.database.session() as session:
            trees.fail_build(session, base_id(site), 1, "taken over")
        runtime.leases.extend()

    during_compute(runtime, be_failed)
    rebuild(runtime, "base")
    with site.database.session(read_only=True) as session:
        assert trees.published(session, base_id(site)) is None
        assert trees.versions(session, base_id(site))[0].error == "taken over"


def test_no_tree_is_built_when_the_base_has_no_lower_layers(site: Worksite, runtime: Runtime) -> None:
    site.add_base("exact", small_spec(k=0))
    rebuild(runtime, "exact")
    rebuild_all(runtime)
    with site.database.session(read_only=True) as session:
        assert trees.versions(session, bases.get_base(session, "exact").id) == []
    assert published(site).number == 1


def test_the_schedule_skips_a_tree_when_it_was_built_recently(site: Worksite, runtime: Runtime, movies: str) -> None:
    count(site, movies, [5])
    rebuild_all(runtime)
    assert published(site).number == 1
    with site.database.session() as session:
        ago = database_time(session) - site.settings.rebuild_seconds - 1
        session.execute(update(TreeVersion).values(published_at=ago))
    rebuild_all(runtime)
    assert published(site).number == 2


def test_old_tables_are_deleted_when_no_kept_version_names_them(site: Worksite, runtime: Runtime, movies: str) -> None:
    digests = []
    for middle in (5, 9, 20):
        count(site, movies, [middle])
        rebuild(runtime, "base")
        digests.append(published(site).tables)
    with site.database.session(read_only=True) as session:
        assert [version.number for version in trees.versions(session, base_id(site))] == [3, 2]
    assert digests[0]["general"] == digests[2]["general"]
    store = ArtifactStore(site.storage, site.settings.resolved_cache_dir)
    store.folder(digests[0]["general"])
    store.folder(digests[1]["movies"])
    with pytest.raises(NotFound):
        store.folder(digests[0]["movies"])


def test_tables_are_kept_when_a_live_worker_still_reads_them(site: Worksite, runtime: Runtime, movies: str) -> None:
    count(site, movies, [5])
    rebuild(runtime, "base")
    oldest = published(site).tables
    with running(site, name="slow@there") as slow:
        slow.load_bases()
        slow.report()
        for middle in (9, 20, 25):
            count(site, movies, [middle])
            rebuild(runtime, "base")
        site.artifacts.folder(oldest["movies"])
        slow.refresh_trees()
        slow.report()
    rebuild(runtime, "base")
    with pytest.raises(NotFound):
        site.artifacts.folder(oldest["movies"])


def test_lines_are_answered_when_a_table_of_the_new_tree_cannot_be_read(
    site: Worksite, runtime: Runtime, movies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild(runtime, "base")
    with running(site, name="other@there") as other:
        other.load_bases()
        count(site, movies, [5])
        rebuild(runtime, "base")

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(Table, "verify", fail)
            other.refresh_trees()
            batch = site.submit("acme", [line("a", MODEL)])
            run_waiting(other, site)
            assert [use.number for use in other.engine.stats().trees] == [1]
        assert len(site.results("acme", batch).answers) == 1
        other.refresh_trees()
        assert [use.number for use in other.engine.stats().trees] == [2]
