"""The tree that a base model should be using: as the catalog has it, and over those of its tables that are of use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from hmi.catalog import RegisteredBase, deltas, domains, trees
from hmi.knowledge import Function, functions_of
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import Table
from hmi.spec import HPLMSpec

__all__ = ["DesiredTree", "OpenedTree", "assemble", "wanted_tree"]


@dataclass(frozen=True, slots=True)
class DesiredTree:
    """A published tree as the catalog has it, with today's domains; number 0 and no tables where none was published.

    Attributes:
        tables: Artifact of each domain's table.
        functions: What computes each domain's rows today. A table that another function computed is of no use.
    """

    number: int
    tables: dict[str, str]
    parents: dict[str, str | None]
    functions: dict[str, Function]


@dataclass(frozen=True, slots=True)
class OpenedTree:
    """A tree, and why it is without the tables that it is without, by domain."""

    tree: KnowledgeTree
    missing: dict[str, str] = field(default_factory=dict)


def wanted_tree(session: Session, base: RegisteredBase) -> DesiredTree:
    """The published tree, with today's domains: a domain that is newer than the tree looks up in its ancestors."""
    parents = domains.parents(session)
    functions = functions_of(base.artifact, parents, deltas.delta_artifacts(session, base.id))
    published = trees.published(session, base.id)
    if published is None:
        return DesiredTree(0, {}, parents, functions)
    return DesiredTree(published.number, dict(published.tables), parents, functions)


def assemble(
    wanted: DesiredTree, spec: HPLMSpec, tables: Mapping[str, Table], missing: Mapping[str, str]
) -> OpenedTree:
    """The wanted tree over those of the tables that are of use today; `missing` says of others why there are none."""
    reasons = {
        domain: reason for domain, table in tables.items() if (reason := _of_no_use(domain, table, spec, wanted))
    }
    tree = KnowledgeTree(
        number=wanted.number,
        parents=wanted.parents,
        tables={domain: table for domain, table in tables.items() if domain not in reasons},
        row_dtype=spec.row_dtype,
        hidden_size=spec.hidden_size,
        functions={domain: function.digest for domain, function in wanted.functions.items()},
    )
    return OpenedTree(tree, {**missing, **reasons})


def _of_no_use(domain: str, table: Table, spec: HPLMSpec, wanted: DesiredTree) -> str | None:
    meta = table.meta
    if domain not in wanted.parents:
        return "there is no such domain"
    if meta.domain != domain or (meta.row_dtype, meta.hidden_size) != (spec.row_dtype, spec.hidden_size):
        return f"{table.folder} is not a table of this domain for this base model"
    if meta.function != wanted.functions[domain].digest:
        return f"its rows were computed by function {meta.function[:12]}, no longer the domain's"
    return None
