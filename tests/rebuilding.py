"""Counts for tree builds on a `Worksite`, and the results of a build."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmi.catalog import NgramCounts, TreeVersion, bases, deltas, domains, frequencies, trees
from hmi.knowledge import Keys, ngrams
from hmi.tenant_bits import PUBLIC
from tests.worksite import Worksite
from worker.runtime import Runtime

__all__ = ["base_artifact", "base_id", "count", "during_compute", "last_version", "published", "set_delta"]


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


def last_version(site: Worksite) -> TreeVersion:
    with site.database.session(read_only=True) as session:
        return trees.versions(session, base_id(site))[0]


def count(site: Worksite, domain: str, middles: list[int], times: int = 10) -> Keys:
    """Count the windows (m-1, m, m+1) in the domain and return their keys."""
    middle = np.array(middles, np.int64)
    keys = ngrams.pack(middle - 1, middle, middle + 1)
    with site.database.session() as session:
        frequencies.add(
            session,
            [
                NgramCounts(
                    base_id(site), domains.get_domain(session, domain).id, keys, np.full(len(keys), times), PUBLIC
                )
            ],
            half_life_seconds=site.settings.frequency_half_life_seconds,
        )
    return keys


def set_delta(site: Worksite, domain: str, weights: bytes) -> str:
    """Give the domain a delta that `StubEngine` accepts, and return its digest."""
    artifact = site.artifacts.put({"adapter.safetensors": io.BytesIO(weights)})
    with site.database.session() as session:
        deltas.set_delta(session, base_id(site), domain, artifact, {"rank": 2})
    return artifact


def during_compute(runtime: Runtime, happens: Callable[[], object]) -> None:
    """Call `happens` once, when the runtime's next build computes its first rows."""
    real = runtime.engine.compute_rows

    def compute(base: str, keys: Keys, *rest: Any, **more: Any) -> NDArray[np.float32]:
        runtime.engine.compute_rows = real  # type: ignore[method-assign]
        happens()
        return real(base, keys, *rest, **more)

    runtime.engine.compute_rows = compute  # type: ignore[method-assign]
