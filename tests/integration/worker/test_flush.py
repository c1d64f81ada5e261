"""Counts on their way from a worker's memory to the catalog."""

from __future__ import annotations

import numpy as np
import pytest

from hmi.catalog import bases, frequencies, trees
from hmi.catalog.trees import Usage
from hmi.errors import Transient
from hmi.knowledge import ngrams
from tests.runtimes import run_waiting, running
from tests.worksite import Worksite, line
from worker import flush
from worker.runtime import Runtime

MODEL = "acme/sentiment"


def loaded(site: Worksite) -> dict[str, frequencies.DomainFrequencies]:
    with site.database.session(read_only=True) as session:
        base = bases.get_base(session, "base")
        return frequencies.load(session, base.id, half_life_seconds=site.settings.frequency_half_life_seconds)


def usage(site: Worksite) -> dict[str, Usage]:
    with site.database.session(read_only=True) as session:
        return trees.usage(session, bases.get_base(session, "base").id, 0)


def test_lookups_are_counted_once_when_they_are_flushed(site: Worksite, runtime: Runtime) -> None:
    site.submit("acme", [line("a", MODEL, [[5, 6, 7], [5, 6, 7]])])
    run_waiting(runtime, site)
    runtime.flusher.flush()
    runtime.flusher.flush()
    counted = loaded(site)["general"]
    keys = ngrams.window_keys(np.array([5, 6, 7]), np.array([3]))
    np.testing.assert_array_equal(counted.ngrams, np.sort(keys))
    np.testing.assert_allclose(counted.weights, 2, rtol=1e-3)
    assert usage(site) == {"general": Usage(6, 0)}


def test_counts_are_flushed_when_the_worker_stops(site: Worksite) -> None:
    with running(site) as runtime:
        site.submit("acme", [line("a", MODEL, [5, 6, 7])])
        run_waiting(runtime, site)
        assert loaded(site) == {}
    assert loaded(site)["general"].weights.sum() == pytest.approx(3, rel=1e-3)


def test_only_the_rest_is_kept_when_a_flush_fails_midway(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flush, "_KEYS", 4)
    site.submit("acme", [line("a", MODEL, list(range(5, 15)))])
    run_waiting(runtime, site)
    real, calls = frequencies.add, []

    def add(*arguments: object, **keywords: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise Transient("the database is gone")
        real(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(frequencies, "add", add)
    with pytest.raises(Transient):
        runtime.flusher.flush()
    assert len(loaded(site)["general"].ngrams) == 4
    runtime.flusher.flush()
    counted = loaded(site)["general"]
    assert len(counted.ngrams) == 10
    np.testing.assert_allclose(counted.weights, 1, rtol=1e-3)
    assert usage(site) == {"general": Usage(10, 0)}


def test_counts_are_let_go_when_their_domain_is_unknown(site: Worksite, runtime: Runtime) -> None:
    keys = ngrams.window_keys(np.array([5, 6, 7]), np.array([3]))
    runtime.engine.frequencies.count("no such base", "general", keys, np.zeros(3, bool), 0)
    runtime.flusher.flush()
    assert loaded(site) == {}
    assert runtime.engine.frequencies.drain() == []
