"""Fixtures over real servers. A server is started once a session, and only when a test asks for it."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from hmi.artifacts import ArtifactStore
from hmi.catalog import Database, upgrade_schema
from hmi.storage import Storage
from tests.integration.servers import PostgresServer, postgres_server, redis_server

_TEMPLATE = "migrated"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """PostgreSQL with a database `migrated` to copy from."""
    with postgres_server() as server:
        upgrade_schema(server.create(_TEMPLATE))
        yield server


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file to copy from."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    upgrade_schema(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated, otherwise empty catalog of the test's own, on either database: for other processes."""
    if request.param == "sqlite":
        path = tmp_path / "catalog.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        yield f"sqlite:///{path}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        name = f"test_{secrets.token_hex(8)}"
        yield server.create(name, template=_TEMPLATE)
        server.drop(name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The same as a `Database`."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def redis_service() -> Iterator[str]:
    """A Redis of the session's own; its URL."""
    with redis_server() as url:
        yield url


@pytest.fixture
def redis_url(redis_service: str) -> str:
    """An empty Redis."""
    with redis.Redis.from_url(redis_service) as client:
        client.flushall()
    return redis_service


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """An empty storage on disk."""
    return Storage(f"file://{tmp_path / 'storage'}")


@pytest.fixture
def artifact_store(storage: Storage, tmp_path: Path) -> ArtifactStore:
    """An empty artifact store in `storage`."""
    return ArtifactStore(storage, tmp_path / "cache")
