"""The desired tree of a base model: what the catalog says it should look up in, over the tables that can be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from hmi.catalog import Audience, RegisteredBase, deltas, domains, trees
from hmi.knowledge import Function, functions_of
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import Table
from hmi.spec import HPLMSpec
from hmi.tenant_bits import bitmap_of


@dataclass(frozen=True, slots=True)
class DesiredTree:
    """The published tree with today's domains; number 0 and no tables if none is published."""

    number: int
    tables: dict[str, str]  # artifact digest of each domain's table
    parents: dict[str, str | None]
    functions: dict[str, Function]  # what computes each domain's rows today; a table of another function is not used
    scopes: dict[str, str] = field(default_factory=dict, compare=False)  # of audiences, see `SharingRule`
    owners: dict[str, int] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class OpenedTree:
    """A tree, and the reason for each table that it lacks, by domain."""

    tree: KnowledgeTree
    missing: dict[str, str] = field(default_factory=dict)


def desired_tree(session: Session, base: RegisteredBase) -> DesiredTree:
    """Return the published tree with today's domains: a domain newer than the tree looks up in its ancestors."""
    known = domains.list_domains(session)
    parents = {domain.name: domain.parent for domain in known}
    functions = functions_of(base.artifact, parents, deltas.delta_artifacts(session, base.id))
    scopes = {domain.name: domain.scope for domain in known}
    owners = {
        domain.name: 0 if domain.owner_bit is None else bitmap_of(domain.owner_bit)
        for domain in known
        if domain.audience is Audience.PRIVATE
    }
    published = trees.published(session, base.id)
    number, tables = (published.number, dict(published.tables)) if published else (0, {})
    return DesiredTree(number, tables, parents, functions, scopes, owners)


def assemble(
    desired: DesiredTree, spec: HPLMSpec, tables: Mapping[str, Table], missing: Mapping[str, str]
) -> OpenedTree:
    """Return the desired tree over those of the opened tables that can be used; `missing` has the reasons of others."""
    unusable = {
        domain: reason for domain, table in tables.items() if (reason := _why_unusable(domain, table, spec, desired))
    }
    tree = KnowledgeTree(
        number=desired.number,
        parents=desired.parents,
        tables={domain: table for domain, table in tables.items() if domain not in unusable},
        row_dtype=spec.row_dtype,
        hidden_size=spec.hidden_size,
        functions={domain: function.digest for domain, function in desired.functions.items()},
    )
    return OpenedTree(tree, {**missing, **unusable})


def _why_unusable(domain: str, table: Table, spec: HPLMSpec, desired: DesiredTree) -> str | None:
    meta = table.meta
    if domain not in desired.parents:
        return "there is no such domain"
    if meta.domain != domain or (meta.row_dtype, meta.hidden_size) != (spec.row_dtype, spec.hidden_size):
        return f"{table.folder} is not a table of this domain for this base model"
    if meta.function != desired.functions[domain].digest:
        return f"its rows were computed by function {meta.function[:12]}, no longer the domain's"
    return None
