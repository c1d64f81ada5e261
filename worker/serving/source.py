"""What the engine asks for, found in the catalog and the artifact store; and the tree that it should be using."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy.orm import Session

from hmi.artifacts import ArtifactStore
from hmi.catalog import Database, RegisteredBase, bases
from hmi.errors import Cancelled, Corrupt, HmiError, NotFound
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import Table
from hmi.spec import HPLMSpec
from hmi.stats import EngineStats
from worker.lifecycle import describe
from worker.serving.desired import DesiredTree, OpenedTree, assemble, wanted_tree
from worker.serving.tables import TableCache

__all__ = ["CatalogSource", "TreeReader", "find_base"]

_log = structlog.get_logger(__name__)

_PATIENCE = 5  # refreshes that fail for what may pass before the tree is used without the table


class TreeReader(Protocol):
    """The part of an engine that `CatalogSource.refresh` speaks to."""

    def publish_tree(self, base: str, tree: KnowledgeTree) -> None: ...

    def stats(self) -> EngineStats: ...


def find_base(session: Session, artifact: str) -> RegisteredBase | None:
    """The base model of these weights. Of several names for the same weights it is the first."""
    named = [base for base in bases.list_bases(session) if base.artifact == artifact]
    return min(named, key=lambda base: (base.created_at, base.id), default=None)


class CatalogSource:
    """`hmi.engine.ModelSource` over catalog and artifacts. All methods may be called from any thread.

    Args:
        cache_dir: Where it is written down which tables were read whole.
    """

    def __init__(self, database: Database, artifacts: ArtifactStore, cache_dir: Path) -> None:
        self._database = database
        self._artifacts = artifacts
        self._tables = TableCache(artifacts, cache_dir / "verified")
        self._given: dict[str, DesiredTree] = {}
        self._missing: dict[str, dict[str, str]] = {}  # base -> domain -> why its table is not used
        self._failures: dict[str, int] = {}  # refreshes in a row that failed for what may pass
        self._lock = threading.Lock()  # of the three above, never held for longer than a look
        self._refreshing = threading.Lock()
        self._handing = threading.Lock()  # so that what is said to be given is what the engine was given last

    def base_folder(self, digest: str) -> Path:
        return self._artifacts.folder(digest, verify=True)

    def adapter_file(self, digest: str) -> Path:
        path = self._artifacts.folder(digest, verify=True) / "adapter.safetensors"
        if not path.is_file():
            raise Corrupt(f"artifact {digest} holds no adapter.safetensors")
        return path

    def tree(self, base: str) -> KnowledgeTree:
        """The published tree, without the tables that are damaged; see `missing`."""
        with self._database.session(read_only=True) as session:
            row = find_base(session, base)
            if row is None:
                raise NotFound(f"no base model has the weights {base}")
            spec, wanted = bases.spec_of(row), wanted_tree(session, row)
        opened = self.open(spec, wanted)
        self._give(base, wanted, opened)
        return opened.tree

    def missing(self) -> dict[str, dict[str, str]]:
        """By base model's digest and domain: why the tree in use is without the domain's published table."""
        with self._lock:
            return {base: dict(reasons) for base, reasons in self._missing.items() if reasons}

    def refresh(self, engine: TreeReader, pace: Callable[[int], None] | None = None) -> None:
        """Hand the engine every tree that was published or whose domains changed since it was last told. Takes as long
        as it takes to read new tables whole; returns at once where another thread is at it.

        Args:
            pace: Called with the bytes read of new tables; what it raises ends the refresh.
        """
        if not self._refreshing.acquire(blocking=False):
            return
        try:
            for digest, spec, wanted in self._changed(engine):
                self._renew(engine, digest, spec, wanted, pace)
        finally:
            self._refreshing.release()

    def refresh_open(self, engine: TreeReader) -> None:
        """As `refresh`, but a tree with tables that were not read yet is left to that: this takes no time."""
        for digest, spec, wanted in self._changed(engine):
            opened = self._open_known(digest, spec, wanted)
            if opened is not None:
                self._hand(engine, digest, wanted, opened)

    def _changed(self, engine: TreeReader) -> list[tuple[str, HPLMSpec, DesiredTree]]:
        """What the engine should look up in, where that is not what it does."""
        used = {use.base: use.number for use in engine.stats().trees}
        with self._database.session(read_only=True) as session:
            found = [(digest, find_base(session, digest)) for digest in used]
            wanted = [(digest, bases.spec_of(row), wanted_tree(session, row)) for digest, row in found if row]
        with self._lock:
            return [each for each in wanted if used[each[0]] != each[2].number or self._given.get(each[0]) != each[2]]

    def open(
        self,
        spec: HPLMSpec,
        wanted: DesiredTree,
        pace: Callable[[int], None] | None = None,
        *,
        patient: bool = True,
    ) -> OpenedTree:
        """The tree over those of its tables that are whole and that its domains' functions of today computed.

        A table that is open already, for this version or another, is used again. No lock is held meanwhile.

        Args:
            pace: See `TableCache.open`.
            patient: Raise what may pass (a bucket that does not answer), rather than go without the table.
        """
        tables: dict[str, Table] = {}
        missing: dict[str, str] = {}
        for domain, artifact in wanted.tables.items():
            try:
                tables[domain] = self._tables.open(artifact, pace)
            except (Corrupt, NotFound) as error:
                missing[domain] = error.message
            except OSError as error:
                if patient:
                    raise
                missing[domain] = describe(error)
        return assemble(wanted, spec, tables, missing)

    def forget(self, artifact: str) -> None:
        """Nothing shall be known of a table that was deleted."""
        self._tables.forget(artifact)

    def _open_known(self, digest: str, spec: HPLMSpec, wanted: DesiredTree) -> OpenedTree | None:
        """As `open`, of tables alone that are open or known to be of no use; None where there are others."""
        with self._lock:
            given, missing = self._given.get(digest), self._missing.get(digest, {})
        tables: dict[str, Table] = {}
        reasons: dict[str, str] = {}
        for domain, artifact in wanted.tables.items():
            table = self._tables.find(artifact)
            if table is not None:
                tables[domain] = table
            elif given is not None and domain in missing and given.tables.get(domain) == artifact:
                reasons[domain] = missing[domain]
            else:
                return None
        return assemble(wanted, spec, tables, reasons)

    def _renew(
        self, engine: TreeReader, digest: str, spec: HPLMSpec, wanted: DesiredTree, pace: Callable[[int], None] | None
    ) -> None:
        failures = self._failures.get(digest, 0)
        try:
            opened = self.open(spec, wanted, pace, patient=failures < _PATIENCE)
        except Cancelled:
            raise
        except (HmiError, OSError) as error:
            # It may go better the next time; what is in use goes on serving.
            self._failures[digest] = failures + 1
            _log.warning("tree_not_opened", base=digest, number=wanted.number, reason=describe(error))
            return
        self._failures.pop(digest, None)
        # The reading may have taken minutes, and another version may be the wanted one by now.
        if any(each[0] == digest and each[2] == wanted for each in self._changed(engine)):
            self._hand(engine, digest, wanted, opened)

    def _hand(self, engine: TreeReader, digest: str, wanted: DesiredTree, opened: OpenedTree) -> None:
        with self._handing:
            engine.publish_tree(digest, opened.tree)
            self._give(digest, wanted, opened)
        _log.info("tree_in_use", base=digest, number=wanted.number, tables=len(opened.tree.tables))

    def _give(self, digest: str, wanted: DesiredTree, opened: OpenedTree) -> None:
        with self._lock:
            said = self._missing.get(digest, {})
            self._given[digest] = wanted
            self._missing[digest] = opened.missing
            named = {artifact for given in self._given.values() for artifact in given.tables.values()}
        for domain, reason in opened.missing.items():
            if said.get(domain) != reason:
                _log.error("table_not_used", base=digest, number=wanted.number, domain=domain, reason=reason)
        self._tables.keep(named)
