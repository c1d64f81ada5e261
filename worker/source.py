"""What the engine asks for, found in the catalog and the artifact store; and the tree that it should be using."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy.orm import Session

from hmi.artifacts import ArtifactStore
from hmi.catalog import bases, domains, trees
from hmi.catalog.database import Database
from hmi.catalog.tables import BaseModel
from hmi.engine.stats import EngineStats
from hmi.errors import Corrupt, HmiError, NotFound
from hmi.knowledge.table import Table
from hmi.knowledge.tree import KnowledgeTree
from hmi.spec import HPLMSpec
from worker.logs import describe

__all__ = ["CatalogSource", "TreeReader", "WantedTree", "find_base", "wanted_tree"]

_log = structlog.get_logger(__name__)


class TreeReader(Protocol):
    """The part of an engine that `CatalogSource.refresh` speaks to."""

    def publish_tree(self, base: str, tree: KnowledgeTree) -> None: ...

    def stats(self) -> EngineStats: ...


@dataclass(frozen=True, slots=True)
class WantedTree:
    """A published tree as the catalog has it; number 0 and no tables where none was published."""

    number: int
    tables: dict[str, str]  # domain -> artifact
    parents: dict[str, str | None]


def find_base(session: Session, artifact: str) -> BaseModel | None:
    """The base model of these weights. Of several names for the same weights it is the first."""
    named = [base for base in bases.list_bases(session) if base.artifact == artifact]
    return min(named, key=lambda base: (base.created_at, base.id), default=None)


def wanted_tree(session: Session, base: BaseModel) -> WantedTree:
    """The published tree, with today's domains: a domain that is newer than the tree looks up in its ancestors."""
    parents = domains.parents(session)
    published = trees.published(session, base.id)
    if published is None:
        return WantedTree(0, {}, parents)
    return WantedTree(published.number, dict(published.tables), parents)


class CatalogSource:
    """`hmi.engine.hosted.ModelSource` over catalog and artifacts. All methods may be called from any thread."""

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database = database
        self._artifacts = artifacts
        self._given: dict[str, WantedTree] = {}
        self._damaged: dict[str, WantedTree] = {}
        self._tables: dict[str, Table] = {}  # opened and checked, by artifact
        self._refreshing = threading.Lock()
        self._opening = threading.Lock()

    def base_folder(self, digest: str) -> Path:
        return self._artifacts.folder(digest, verify=True)

    def adapter_file(self, digest: str) -> Path:
        path = self._artifacts.folder(digest, verify=True) / "adapter.safetensors"
        if not path.is_file():
            raise Corrupt(f"artifact {digest} holds no adapter.safetensors")
        return path

    def tree(self, base: str) -> KnowledgeTree:
        """Raises `Corrupt` naming the table's file where one is damaged."""
        with self._database.session(read_only=True) as session:
            row = find_base(session, base)
            if row is None:
                raise NotFound(f"no base model has the weights {base}")
            spec, wanted = bases.spec_of(row), wanted_tree(session, row)
        tree = self.open(base, spec, wanted)
        with self._opening:
            self._given[base] = wanted
        return tree

    def refresh(self, engine: TreeReader) -> None:
        """Hand the engine every tree that was published since it was last told. Returns at once where
        another thread is at it."""
        if not self._refreshing.acquire(blocking=False):
            return
        try:
            used = {use.base: use.number for use in engine.stats().trees}
            with self._database.session(read_only=True) as session:
                found = [(digest, find_base(session, digest)) for digest in used]
                wanted = [(digest, bases.spec_of(row), wanted_tree(session, row)) for digest, row in found if row]
            for digest, spec, tree in wanted:
                is_new = used[digest] != tree.number or self._given.get(digest) != tree
                if is_new and self._damaged.get(digest) != tree:
                    self._publish(engine, digest, spec, tree)
        finally:
            self._refreshing.release()

    def open(self, base: str, spec: HPLMSpec, wanted: WantedTree) -> KnowledgeTree:
        """The tree over its tables; one that is open already, for this version or another, is used again.

        Raises `Corrupt` naming the file.
        """
        with self._opening:
            return KnowledgeTree(
                number=wanted.number,
                parents=wanted.parents,
                tables={domain: self._table(artifact, base) for domain, artifact in wanted.tables.items()},
                row_dtype=spec.row_dtype,
                hidden_size=spec.hidden_size,
            )

    def _publish(self, engine: TreeReader, digest: str, spec: HPLMSpec, wanted: WantedTree) -> None:
        try:
            tree = self.open(digest, spec, wanted)
        except (Corrupt, NotFound) as error:
            # Said once; what is in use goes on serving until another version is published.
            _log.error("tree_not_usable", base=digest, number=wanted.number, reason=error.message)
            self._damaged[digest] = wanted
            return
        except (HmiError, OSError) as error:
            _log.warning("tree_not_opened", base=digest, number=wanted.number, reason=describe(error))
            return
        engine.publish_tree(digest, tree)
        with self._opening:
            self._given[digest] = wanted
            # What no tree in use names is let go here, and unmapped with the last batch that reads it.
            named = {artifact for given in self._given.values() for artifact in given.tables.values()}
            self._tables = {artifact: table for artifact, table in self._tables.items() if artifact in named}
        _log.info("tree_in_use", base=digest, number=wanted.number, tables=len(wanted.tables))

    def _table(self, artifact: str, base: str) -> Table:
        table = self._tables.get(artifact)
        if table is None:
            table = Table.open(self._artifacts.folder(artifact))
            table.verify()
            self._tables[artifact] = table
        if table.meta.function != base:
            raise Corrupt(f"table {artifact} was computed by other weights than {base}")
        return table
