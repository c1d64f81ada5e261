"""The API over a SQLite file and a broker in memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from hmi.catalog import upgrade_schema
from hmi.settings import Settings
from tests.apis import Api, run_api


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api") / "migrated.db"
    upgrade_schema(f"sqlite:///{path}")
    return path


@pytest.fixture
def settings(migrated: Path, tmp_path: Path) -> Settings:
    shutil.copy(migrated, tmp_path / "hmi.db")
    return Settings(
        _env_file=None,
        data_dir=tmp_path,
        broker_url=SecretStr("memory://"),
        max_file_bytes=100_000,
        max_adapter_bytes=50_000,
        max_base_bytes=100_000,
        max_batch_lines=20,
        max_line_bytes=2_000,
        max_queued_lines_per_tenant=10,
        shard_lines=2,
    )


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    with run_api(settings) as api:
        yield api
