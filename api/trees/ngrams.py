"""/v1/hmi/trees/{base}/top and /diff: the n-grams of trees as text."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import Query

from api.routing import Served, admin_router, errors
from api.trees.diff import describe
from api.trees.endpoints import BaseName, base_with_trees
from api.trees.ngram_text import NgramReader, key_of, key_pattern, name_of
from api.trees.tables import find_version, open_tables, open_version, parents_of
from hmi.catalog import deltas, domains, trees
from hmi.knowledge import ancestor_chains, functions_of
from hmi.knowledge.lookup import diff_trees, find_holders
from hmi.schemas import NgramObject, NgramPage, TreeDiffObject

router = admin_router("/v1/hmi/trees", "knowledge")

_VERSION = {"ge": 1, "le": 2**31 - 1}


@router.get("/{base}/top", summary="List a domain's n-grams", responses=errors(404, 507))
def list_top(
    services: Served,
    base: BaseName,
    domain: Annotated[
        str, Query(max_length=64, description="Domain whose lookups were counted.", examples=["general"])
    ],
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    after: Annotated[str | None, Query(pattern=key_pattern, description="`last_id` of the part before.")] = None,
) -> NgramPage:
    """As text, the most frequent first, each with its place in the published tree.

    Counts change meanwhile; an n-gram whose rank changes between two parts may be listed twice, or not at all.
    """
    with services.database.session(read_only=True) as session:
        row = base_with_trees(session, base)
        place = domains.get_domain(session, domain)
        cursor = None if after is None else key_of(after)
        # One more than is shown, to know whether there are others.
        found = trees.list_top_ngrams(session, row.id, place.id, limit=limit + 1, after=cursor)
        ngrams = trees.count_ngrams(session, row.id, place.id)
        published = trees.published(session, row.id)
        parents = domains.parents(session)
        functions = functions_of(row.artifact, parents, deltas.delta_artifacts(session, row.id))
    shown = found[:limit]
    keys = np.array([each.ngram for each in shown], np.uint64)
    chain = ancestor_chains(parents)[domain]
    tables = open_tables(services, published.tables, chain) if published else {}
    holders = find_holders(keys, chain, tables, {name: each.digest for name, each in functions.items()})
    texts = NgramReader(services.tokenizer(row.artifact)).read(keys, [each.count for each in shown]) if shown else []
    return NgramPage(
        base=row.name,
        domain=domain,
        number=published.number if published else None,
        ngrams=ngrams,
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

    The most frequent ones are listed with today's counts, which include those of descendants.
    """
    with services.database.session(read_only=True) as session:
        row = base_with_trees(session, base)
        versions = [find_version(session, row, each, param=name) for each, name in ((before, "from"), (after, "to"))]
        parents = [parents_of(session, each) for each in versions]
    earlier, later = (open_version(services, *each) for each in zip(versions, parents, strict=True))
    found = diff_trees(earlier, later)
    return TreeDiffObject(
        base=row.name, before=before, after=after, domains=describe(services, row, found, later.parents, limit)
    )
