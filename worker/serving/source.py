"""What the engine loads, found in catalog and artifact store, and the refresh of the trees that it looks up in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy.orm import Session

from hmi.adapters.formats import FILE_NAME
from hmi.artifacts import ArtifactStore
from hmi.catalog import Database, RegisteredBase, bases
from hmi.errors import Cancelled, Corrupt, HmiError, NotFound
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import Table
from hmi.spec import HPLMSpec
from hmi.stats import EngineStats
from worker.lifecycle import describe
from worker.serving.desired import DesiredTree, OpenedTree, assemble, desired_tree
from worker.serving.tables import TableCache

_log = structlog.get_logger(__name__)

_MAX_FAILURES = 5  # refreshes that may fail for a passing reason before the tree is used without the table

_Pace = Callable[[int], None] | None


class TreeEngine(Protocol):
    """The part of an engine that `CatalogSource.refresh` calls."""

    def publish_tree(self, base: str, tree: KnowledgeTree) -> None: ...
    def stats(self) -> EngineStats: ...


def find_base(session: Session, artifact: str) -> RegisteredBase | None:
    """Return the base model of these weights; of several names for the same weights the first."""
    named = [base for base in bases.list_bases(session) if base.artifact == artifact]
    return min(named, key=lambda base: (base.created_at, base.id), default=None)


class CatalogSource:
    """`hmi.engine.ModelSource` over catalog and artifacts. All methods may be called from any thread."""

    def __init__(self, database: Database, artifacts: ArtifactStore, cache_dir: Path) -> None:
        self._database = database
        self._artifacts = artifacts
        self._tables = TableCache(artifacts, cache_dir / "verified")
        self._in_use: dict[str, DesiredTree] = {}  # by base model's digest, like the two below
        self._missing: dict[str, dict[str, str]] = {}  # why a domain's table is not used
        self._failures: dict[str, int] = {}  # failed refreshes in a row
        self._lock = threading.Lock()  # of `_in_use` and `_missing`, held for an access only
        self._refreshing = threading.Lock()
        self._publishing = threading.Lock()  # `_in_use` is what the engine was given last

    def base_folder(self, digest: str) -> Path:
        return self._artifacts.folder(digest, verify=True)

    def adapter_file(self, digest: str) -> Path:
        path = self._artifacts.folder(digest, verify=True) / FILE_NAME
        if not path.is_file():
            raise Corrupt(f"artifact {digest} holds no {FILE_NAME}")
        return path

    def tree(self, base: str) -> KnowledgeTree:
        """Return the published tree, without the tables that are damaged; see `missing`."""
        with self._database.session(read_only=True) as session:
            row = find_base(session, base)
            if row is None:
                raise NotFound(f"no base model has the weights {base}")
            spec, desired = bases.spec_of(row), desired_tree(session, row)
        opened = self.open(spec, desired)
        self._set_in_use(base, desired, opened)
        return opened.tree

    def missing(self) -> dict[str, dict[str, str]]:
        """Return why the trees in use lack a published table, by base model's digest and domain."""
        with self._lock:
            return {base: dict(reasons) for base, reasons in self._missing.items() if reasons}

    def refresh(self, engine: TreeEngine, pace: _Pace = None) -> None:
        """Publish to the engine every tree that changed, after reading its new tables completely.

        Returns at once while another thread refreshes: that one or the next periodic call finds the change. `pace` is
        called with the bytes read of new tables; what it raises ends the refresh.
        """
        if not self._refreshing.acquire(blocking=False):
            return
        try:
            for digest, spec, desired in self._changed(engine):
                self._refresh_base(engine, digest, spec, desired, pace)
        finally:
            self._refreshing.release()

    def refresh_open(self, engine: TreeEngine) -> None:
        """As `refresh`, but of trees all of whose tables are open already: this takes no time."""
        for digest, spec, desired in self._changed(engine):
            if opened := self._open_known(digest, spec, desired):
                self._publish(engine, digest, desired, opened)

    def _changed(self, engine: TreeEngine) -> list[tuple[str, HPLMSpec, DesiredTree]]:
        """Return the desired trees that the engine does not use yet."""
        used = {use.base: use.number for use in engine.stats().trees}
        with self._database.session(read_only=True) as session:
            found = [(digest, find_base(session, digest)) for digest in used]
            desired = [(digest, bases.spec_of(row), desired_tree(session, row)) for digest, row in found if row]
        with self._lock:
            return [each for each in desired if used[each[0]] != each[2].number or self._in_use.get(each[0]) != each[2]]

    def open(self, spec: HPLMSpec, desired: DesiredTree, pace: _Pace = None, *, patient: bool = True) -> OpenedTree:
        """Open the tables of a tree that are intact and of their domains' present functions.

        A table that is open already, for this version or another, is reused. No lock is held meanwhile. With `patient`
        a passing error (a bucket that does not answer) is raised; without, the table is left out.
        """
        tables: dict[str, Table] = {}
        missing: dict[str, str] = {}
        for domain, artifact in desired.tables.items():
            try:
                tables[domain] = self._tables.open(artifact, pace)
            except (Corrupt, NotFound) as error:
                missing[domain] = error.message
            except OSError as error:
                if patient:
                    raise
                missing[domain] = describe(error)
        return assemble(desired, spec, tables, missing)

    def forget(self, artifact: str) -> None:
        """Drop a table that was deleted."""
        self._tables.forget(artifact)

    def _open_known(self, digest: str, spec: HPLMSpec, desired: DesiredTree) -> OpenedTree | None:
        """As `open`, if every table is open or known to be unusable; None otherwise."""
        with self._lock:
            in_use, missing = self._in_use.get(digest), self._missing.get(digest, {})
        tables: dict[str, Table] = {}
        reasons: dict[str, str] = {}
        for domain, artifact in desired.tables.items():
            table = self._tables.find(artifact)
            if table is not None:
                tables[domain] = table
            elif in_use is not None and domain in missing and in_use.tables.get(domain) == artifact:
                reasons[domain] = missing[domain]
            else:
                return None
        return assemble(desired, spec, tables, reasons)

    def _refresh_base(self, engine: TreeEngine, digest: str, spec: HPLMSpec, desired: DesiredTree, pace: _Pace) -> None:
        failures = self._failures.get(digest, 0)
        try:
            opened = self.open(spec, desired, pace, patient=failures < _MAX_FAILURES)
        except Cancelled:
            raise
        except (HmiError, OSError) as error:
            # The next refresh may succeed; the tree in use keeps serving.
            self._failures[digest] = failures + 1
            _log.warning("tree_not_opened", base=digest, number=desired.number, reason=describe(error))
            return
        self._failures.pop(digest, None)
        # Reading may have taken minutes, and another version may be the desired one by now.
        if any(each[0] == digest and each[2] == desired for each in self._changed(engine)):
            self._publish(engine, digest, desired, opened)

    def _publish(self, engine: TreeEngine, digest: str, desired: DesiredTree, opened: OpenedTree) -> None:
        with self._publishing:
            engine.publish_tree(digest, opened.tree)
            self._set_in_use(digest, desired, opened)
        _log.info("tree_in_use", base=digest, number=desired.number, tables=len(opened.tree.tables))

    def _set_in_use(self, digest: str, desired: DesiredTree, opened: OpenedTree) -> None:
        with self._lock:
            before = self._missing.get(digest, {})
            self._in_use[digest] = desired
            self._missing[digest] = opened.missing
            named = {artifact for each in self._in_use.values() for artifact in each.tables.values()}
        for domain, reason in opened.missing.items():
            if before.get(domain) != reason:
                _log.error("table_not_used", base=digest, number=desired.number, domain=domain, reason=reason)
        self._tables.keep(named)
