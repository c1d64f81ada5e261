"""Rebuilding trees: what is published, what stays when a build fails, what is forgotten."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from sqlalchemy import update

from hmi.artifacts import ArtifactStore
from hmi.catalog import bases, domains, frequencies, trees
from hmi.catalog.database import clock
from hmi.catalog.tables import TreeStatus, TreeVersion
from hmi.errors import NotFound
from hmi.knowledge import ngrams
from hmi.knowledge.table import Table
from tests.runtimes import run_waiting, running
from tests.worksite import Worksite, line, small_spec
from worker.runtime import Runtime
from worker.trees import rebuild, rebuild_all

MODEL = "acme/sentiment"


def base_id(site: Worksite) -> str:
    with site.database.session(read_only=True) as session:
        return bases.get_base(session, "base").id


def base_artifact(site: Worksite) -> str:
    with site.database.session(read_only=True) as session:
        return bases.get_base(session, "base").artifact


def published(site: Worksite) -> trees.PublishedTree:
    with site.database.session(read_only=True) as session:
        found = trees.published(session, base_id(site))
    assert found is not None
    return found


def count(site: Worksite, domain: str, middles: list[int], times: int = 10) -> np.ndarray:
    """Have the domain asked for the windows (m-1, m, m+1); gives their keys."""
    middle = np.array(middles, np.int64)
    keys = ngrams.pack(middle - 1, middle, middle + 1)
    with site.database.session() as session:
        frequencies.add(
            session,
            base_id(site),
            domains.get_domain(session, domain).id,
            keys,
            np.full(len(keys), times),
            half_life_seconds=site.settings.frequency_half_life_seconds,
        )
    return keys


@pytest.fixture
def movies(site: Worksite) -> str:
    site.add_domain("reviews")
    site.add_domain("movies", "reviews")
    return "movies"


def test_tree_holds_what_was_asked_for_when_it_is_rebuilt(site: Worksite, runtime: Runtime, movies: str) -> None:
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


def _base(site: Worksite) -> str:
    with site.database.session(read_only=True) as session:
        return bases.get_base(session, "base").artifact


def test_worker_looks_up_in_the_new_tree_when_one_is_published(site: Worksite, runtime: Runtime, movies: str) -> None:
    site.add_model("acme", "films", domain=movies)
    site.submit("acme", [line("a", "acme/films", [[5, 6, 7, 8, 9]])])
    with running(site, name="other@there") as other:
        run_waiting(other, site)
        assert [use.number for use in other.engine.stats().trees] == [0]
        other.flusher.flush()
        rebuild(runtime, "base")
        site.submit("acme", [line("a", "acme/films", [[5, 6, 7, 8, 9]])])
        run_waiting(other, site)
        assert [use.number for use in other.engine.stats().trees] == [1]
        other.flusher.flush()
    with site.database.session(read_only=True) as session:
        before, after = (trees.usage(session, base_id(site), number)[movies] for number in (0, 1))
    assert (before.lookups, before.hits) == (5, 0)
    assert (after.lookups, after.hits) == (5, 5)


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


def test_old_tree_serves_on_when_a_build_fails(
    site: Worksite, runtime: Runtime, movies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild(runtime, "base")
    count(site, movies, [5, 9])
    with monkeypatch.context() as patched:

        def fail(base: str, keys: np.ndarray) -> np.ndarray:
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
    real, calls = runtime.engine.compute_rows, []

    def drift(base: str, keys: np.ndarray) -> np.ndarray:
        calls.append(len(keys))
        return np.asarray(real(base, keys) * (1 if len(calls) == 1 else -1))

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
            runtime.engine, "compute_rows", lambda base, keys: np.asarray(real(base, keys) * next(answers, 1))
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


def test_one_build_runs_when_two_are_asked_for(site: Worksite, runtime: Runtime, movies: str) -> None:
    real = runtime.engine.compute_rows
    numbers: list[int] = []

    def ask_again(base: str, keys: np.ndarray) -> np.ndarray:
        runtime.engine.compute_rows = real  # type: ignore[method-assign]
        with running(site, name="other@there") as other:
            rebuild(other, "base")
        with site.database.session(read_only=True) as session:
            numbers.extend(version.number for version in trees.versions(session, base_id(site)))
        return real(base, keys)

    runtime.engine.compute_rows = ask_again  # type: ignore[method-assign]
    rebuild(runtime, "base")
    assert numbers == [1]
    assert published(site).number == 1


def test_build_publishes_nothing_when_its_lease_was_lost(site: Worksite, runtime: Runtime, movies: str) -> None:
    real = runtime.engine.compute_rows

    def be_failed(base: str, keys: np.ndarray) -> np.ndarray:
        with site.database.session() as session:
            trees.fail_build(session, base_id(site), 1, "taken over")
        runtime.leases.extend()
        return real(base, keys)

    runtime.engine.compute_rows = be_failed  # type: ignore[method-assign]
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


def test_the_schedule_passes_a_tree_by_when_it_was_built_a_short_while_ago(
    site: Worksite, runtime: Runtime, movies: str
) -> None:
    count(site, movies, [5])
    rebuild_all(runtime)
    assert published(site).number == 1
    with site.database.session() as session:
        ago = clock(session) - site.settings.rebuild_seconds - 1
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
        slow.source.refresh(slow.engine)
        slow.report()
    rebuild(runtime, "base")
    with pytest.raises(NotFound):
        site.artifacts.folder(oldest["movies"])


def test_old_tree_is_looked_up_in_when_a_file_of_the_new_one_is_cut_short(
    site: Worksite, runtime: Runtime, movies: str
) -> None:
    rebuild(runtime, "base")
    with running(site, name="other@there") as other:
        other.load_bases()
        count(site, movies, [5])
        rebuild(runtime, "base")
        rows = site.artifacts.folder(published(site).tables[movies]) / "rows.npy"
        rows.write_bytes(rows.read_bytes()[:-1])
        batch = site.submit("acme", [line("a", MODEL)])
        run_waiting(other, site)
        assert [use.number for use in other.engine.stats().trees] == [1]
    assert len(site.results("acme", batch).answers) == 1


def test_lines_are_answered_when_a_table_of_the_new_tree_cannot_be_read(
    site: Worksite, runtime: Runtime, movies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild(runtime, "base")
    with running(site, name="other@there") as other:
        other.load_bases()
        count(site, movies, [5])
        rebuild(runtime, "base")

        def fail(table: Table) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(Table, "verify", fail)
            batch = site.submit("acme", [line("a", MODEL)])
            run_waiting(other, site)
            assert [use.number for use in other.engine.stats().trees] == [1]
        assert len(site.results("acme", batch).answers) == 1
        other.source.refresh(other.engine)
        assert [use.number for use in other.engine.stats().trees] == [2]
