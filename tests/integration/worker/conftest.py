from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtimes import Watcher, running
from tests.worksite import Worksite
from worker.runtime import Runtime


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def site(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Worksite]:
    """A worksite with a base model of the stub's shape, and the tenant `acme` with the model `sentiment`."""
    site = Worksite(tmp_path / "data", database_url, redis_url)
    site.add_base()
    site.add_tenant("acme")
    site.add_model("acme", adapter=b"acme's weights")
    yield site
    site.close()


@pytest.fixture
def runtime(site: Worksite, watcher: Watcher) -> Iterator[Runtime]:
    with running(site, watcher) as runtime:
        yield runtime
