"""/v1/hmi/trees/{base}/top and /diff: the n-grams of trees as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import numpy as np
import structlog
from fastapi import Query
from sqlalchemy.orm import Session

from api.routing import Caller, Served, admin_router, errors, tenant_router
from api.services import Services
from api.trees.diff import describe
from api.trees.endpoints import BaseName, base_with_trees
from api.trees.ngram_text import NgramReader, key_of, key_pattern, name_of
from hmi.catalog import Audience, DomainView, Principal, RegisteredBase, TreeStatus, TreeVersion, deltas, domains, trees
from hmi.errors import Conflict, Corrupt, Forbidden, NotFound
from hmi.knowledge import ancestor_chains, functions_of
from hmi.knowledge.lookup import TreeContents, diff_trees, find_holders
from hmi.knowledge.store import KEY_FILES, Table
from hmi.schemas import NgramObject, NgramPage, TreeDiffObject

_log = structlog.get_logger(__name__)

router = admin_router("/v1/hmi/trees", "knowledge")
top_router = tenant_router("/v1/hmi/trees", "knowledge")

_VERSION = {"ge": 1, "le": 2**31 - 1}


@top_router.get("/{base}/top", summary="List a domain's n-grams", responses=errors(403, 404, 507))
def list_top(
    services: Served,
    caller: Caller,
    base: BaseName,
    domain: Annotated[
        str, Query(max_length=64, description="Domain whose lookups were counted.", examples=["general"])
    ],
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    after: Annotated[str | None, Query(pattern=key_pattern, description="`last_id` of the part before.")] = None,
) -> NgramPage:
    """As text, the most frequent first, each with its place in the published tree.

    Only n-grams that a shared table may hold: public ones, and those that enough different tenants ask for. A tenant's
    key lists what the tenant asked for in a private domain of its own.

    Counts change meanwhile; an n-gram whose rank changes between two parts may be listed twice, or not at all.
    """
    with services.database.session(read_only=True) as session:
        row = base_with_trees(session, base)
        place = _listed_domain(session, caller, domain)
        viewer = trees.Viewer(services.settings.tree_min_tenants, None if caller.is_admin else caller.tenant_id)
        cursor = None if after is None else key_of(after)
        # One more than is shown, to know whether there are others.
        found = trees.list_top_ngrams(session, row.id, place, viewer, limit=limit + 1, after=cursor)
        totals = trees.count_ngrams(session, row.id, place, viewer)
        published = trees.published(session, row.id)
        parents = domains.parents(session)
        functions = functions_of(row.artifact, parents, deltas.delta_artifacts(session, row.id))
    shown = found[:limit]
    keys = np.array([each.ngram for each in shown], np.uint64)
    chain = ancestor_chains(parents)[domain]
    tables = _open_tables(services, published.tables, chain) if published else {}
    holders = find_holders(keys, chain, tables, {name: each.digest for name, each in functions.items()})
    texts = NgramReader(services.tokenizer(row.artifact)).read(keys, [each.count for each in shown]) if shown else []
    return NgramPage(
        base=row.name,
        domain=domain,
        number=published.number if published else None,
        ngrams=totals.shown,
        waiting=totals.waiting,
        unknown=totals.unknown,
        data=[
            NgramObject(**dict(text), held=holder.location, holder=holder.domain)
            for text, holder in zip(texts, holders, strict=True)
        ],
        first_id=name_of(shown[0].ngram) if shown else None,
        last_id=name_of(shown[-1].ngram) if shown else None,
        has_more=len(found) > limit,
    )


@router.get("/{base}/diff", summary="Compare two versions", responses=errors(404, 409, 507))
def compare_versions(
    services: Served,
    base: BaseName,
    before: Annotated[int, Query(alias="from", **_VERSION, description="Number of a version.", examples=[1])],
    after: Annotated[int, Query(alias="to", **_VERSION, description="Number of another.", examples=[2])],
    limit: Annotated[int, Query(ge=0, le=100, description="How many n-grams of each kind to show as text.")] = 10,
) -> TreeDiffObject:
    """By domain: n-grams added, dropped and moved along the ancestor chain, and bytes before and after.

    The most frequent ones are listed with today's counts, which include those of descendants with the same audience:
    those that today's counts let a shared table hold. N-grams of private domains are not listed.
    """
    with services.database.session(read_only=True) as session:
        row = base_with_trees(session, base)
        versions = [_find_version(session, row, each, param=name) for each, name in ((before, "from"), (after, "to"))]
        parents = [_parents_of(session, each) for each in versions]
    earlier, later = (
        TreeContents(_open_tables(services, version.tables, version.tables), known)
        for version, known in zip(versions, parents, strict=True)
    )
    found = diff_trees(earlier, later)
    return TreeDiffObject(
        base=row.name, before=before, after=after, domains=describe(services, row, found, later.parents, limit)
    )


def _listed_domain(session: Session, caller: Principal, name: str) -> DomainView:
    """Raises `NotFound`, and `Forbidden` for a domain that a tenant may use and does not have for itself."""
    domain = domains.get_domain(session, name)
    if caller.is_admin or (domain.audience is Audience.PRIVATE and domain.owner_id == caller.tenant_id):
        return domain
    if not domain.may_use(caller.tenant_id):
        raise NotFound(f"there is no domain {name[:80]!r}", code="domain_not_found", param="domain")
    raise Forbidden(f"a tenant's key lists n-grams of the tenant's private domains, and {domain.name} is shared")


def _find_version(session: Session, base: RegisteredBase, number: int, *, param: str) -> TreeVersion:
    """Raises `NotFound`, and `Conflict` for a version whose build has not succeeded."""
    known = {each.number: each for each in trees.versions(session, base.id)}
    row = known.get(number)
    if row is None:
        kept = f" (any more); known are {', '.join(map(str, sorted(known)))}" if known else ": none was built yet"
        raise NotFound(f"the tree of {base.name} has no version {number}{kept}", code="version_not_found", param=param)
    if row.status is not TreeStatus.READY:
        state = "being built" if row.status is TreeStatus.BUILDING else "a build that failed"
        raise Conflict(f"version {number} of the tree of {base.name} is {state}: it holds nothing", param=param)
    return row


def _parents_of(session: Session, version: TreeVersion) -> dict[str, str | None]:
    """The parents of a version's domains when it was built; today's where it has not recorded them."""
    built = version.report.get("domains", {})
    found = {name: each.get("parent") for name, each in built.items() if "parent" in each}
    whole = bool(found) and all(parent is None or parent in found for parent in found.values())
    return found if whole and set(version.tables) <= set(found) else domains.parents(session)


def _open_tables(services: Services, tables: Mapping[str, str], chosen: Iterable[str]) -> dict[str, Table]:
    """The tables of the chosen domains that have one; `tables` are artifact digests by domain.

    A damaged or lost table is left out and logged, as workers do.
    """
    found = {}
    for domain in chosen:
        if domain not in tables:
            continue
        try:
            found[domain] = Table.open(services.artifacts.part(tables[domain], KEY_FILES), keys_only=True)
        except (Corrupt, NotFound) as error:
            _log.warning("table_not_usable", domain=domain, artifact=tables[domain], reason=error.message)
    return found
