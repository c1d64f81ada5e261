"""On SQLite alone: the catalog's tests cover both databases."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtimes import Watcher, running
from tests.tunings import use_stub
from tests.worksite import Worksite
from worker.runtime import Runtime


@pytest.fixture
def database_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    path = tmp_path / "catalog.db"
    shutil.copy(migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture
def site(tmp_path: Path, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worksite]:
    """With the tenant `acme`; trainings are stubs, and their checkpoints are copied at every step."""
    use_stub(monkeypatch)
    site = Worksite(tmp_path / "data", database_url, redis_url, training_checkpoint_seconds=1e-6)
    site.add_tenant("acme")
    yield site
    site.close()


@pytest.fixture
def runtime(site: Worksite, watcher: Watcher) -> Iterator[Runtime]:
    with running(site, watcher) as runtime:
        yield runtime
