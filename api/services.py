"""Database, storage, artifacts and broker, built once for an application from its settings."""

from __future__ import annotations

from dataclasses import dataclass, replace

import structlog
from celery import Celery
from tokenizers import Tokenizer

from hmi.artifacts import ArtifactStore
from hmi.catalog import Database, is_schema_current, tenants
from hmi.errors import Corrupt, NotFound, Transient
from hmi.jobs import TaskName, make_client, send
from hmi.schemas import Limits
from hmi.settings import Settings
from hmi.storage import Storage

_log = structlog.get_logger(__name__)

_TOKENIZER = "tokenizer.json"

# The longest that a send holds a thread of the server when the broker hangs.
_BROKER_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    database: Database
    storage: Storage
    artifacts: ArtifactStore
    broker: Celery

    @classmethod
    def from_settings(cls, settings: Settings) -> Services:
        storage = Storage(settings.resolved_storage_url)
        return cls(
            settings=settings,
            database=Database(settings.resolved_database_url),
            storage=storage,
            artifacts=ArtifactStore(storage, settings.resolved_cache_dir),
            broker=make_client(settings, socket_timeout_seconds=_BROKER_TIMEOUT_SECONDS),
        )

    @property
    def limits(self) -> Limits:
        return Limits(
            max_line_bytes=self.settings.max_line_bytes,
            max_lines=self.settings.max_batch_lines,
            max_inputs=self.settings.max_inputs_per_line,
        )

    def prepare(self) -> None:
        """Make the settings' admin key known to the catalog. Raises `Transient` where there is no catalog yet."""
        self.check_schema()
        if self.settings.admin_key is None:
            _log.info("no_admin_key", hint="set HMI_ADMIN_KEY, or create a key with the `hmi` command")
            return
        with self.database.session() as session:
            tenants.register_admin_key(session, self.settings.admin_key.get_secret_value())

    def check_schema(self) -> None:
        """Raises `Transient` where the catalog is not migrated, or its user may not serve tenants."""
        if not is_schema_current(self.database):
            raise Transient("the catalog's tables are missing or old; run `hmi db upgrade`", code="not_migrated")
        self.database.check_row_security()

    def for_tenant(self, tenant_id: str) -> Services:
        """The services whose database shows and changes one tenant's rows alone (`Database.for_tenant`)."""
        return replace(self, database=self.database.for_tenant(tenant_id))

    def tokenizer(self, base_artifact: str) -> Tokenizer:
        """A base model's tokenizer; nothing else of the artifact is fetched. Raises `Corrupt` where it is lost."""
        try:
            folder = self.artifacts.part(base_artifact, {_TOKENIZER})
        except NotFound as error:
            raise Corrupt(f"the base model's content is lost: {error.message}") from error
        return Tokenizer.from_file(str(folder / _TOKENIZER))

    def hint(self, task: TaskName, *args: str) -> None:
        """Send a task that a periodic sweep would start anyway; a broker that is down only delays it."""
        try:
            send(self.broker, task, *args)
        except Transient as error:
            _log.warning("broker_unavailable", task=task.value, error=str(error))

    def close(self) -> None:
        self.database.dispose()
        self.broker.close()
