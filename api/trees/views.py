"""Trees and their versions as the API shows them, from the catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from hmi.catalog import HitCounts, RegisteredBase, TreeStatus, TreeVersion, bases, deltas, domains, trees
from hmi.knowledge import Function, functions_of
from hmi.schemas import DomainTableObject, TreeBuild, TreeObject, TreeVersionObject


def view_tree(session: Session, base: RegisteredBase) -> TreeObject:
    """The published tree with today's domains, and the running build."""
    known = trees.versions(session, base.id)
    version = next((each for each in known if each.number == base.tree_number), None)
    used = trees.hit_counts(session, base.id, version.number if version else 0)
    report = dict(version.report) if version else {}
    built: Mapping[str, Any] = report.get("domains", {})
    parents, own_deltas = domains.parents(session), deltas.delta_artifacts(session, base.id)
    functions = functions_of(base.artifact, parents, own_deltas)
    return TreeObject(
        base=base.name,
        k=bases.spec_of(base).k,
        number=version.number if version else None,
        published_at=version.published_at if version else None,
        rolled_back=trees.is_rolled_back(session, base.id),
        report=report,
        building=_building(known),
        requested=trees.requested_version(session, base.id),
        domains={
            name: DomainTableObject(
                parent=parent,
                delta=own_deltas.get(name),
                **_table(built.get(name, {}), functions[name]),
                **_used(used.get(name), built.get(name, {}).get("predicted_hit_rate")),
            )
            for name, parent in parents.items()
        },
    )


def view_versions(session: Session, base: RegisteredBase) -> list[TreeVersionObject]:
    """Newest first."""
    known = trees.versions(session, base.id)
    used = {each.number: trees.hit_counts(session, base.id, each.number) for each in known}
    fallbacks = [*used.values(), trees.hit_counts(session, base.id, 0)]
    return [_version(base, each, used[each.number], fallbacks) for each in known]


def _version(
    base: RegisteredBase, row: TreeVersion, used: Mapping[str, HitCounts], fallbacks: Sequence[Mapping[str, HitCounts]]
) -> TreeVersionObject:
    summed = HitCounts(
        lookups=sum(each.lookups for each in used.values()),
        hits=sum(each.hits for each in used.values()),
        inherited=sum(each.inherited for each in used.values()),
        approximate=sum(each.approximate for each in used.values()),
    )
    return TreeVersionObject(
        number=row.number,
        status=row.status,
        served=row.number == base.tree_number,
        error=row.error,
        progress=row.progress or None if row.status is TreeStatus.BUILDING else None,
        report=row.report,
        created_at=row.created_at,
        published_at=row.published_at,
        **_used(summed, _predicted(row.report, [used, *fallbacks])),
    )


def _predicted(report: Mapping[str, Any], by_version: Sequence[Mapping[str, HitCounts]]) -> float | None:
    """The predicted hit rate of all domains together, to compare with the real one.

    It is weighted by the first element of `by_version` that has lookups: a version without any uses another's.
    """
    found = {name: built.get("predicted_hit_rate") for name, built in report.get("domains", {}).items()}
    rates = {name: float(rate) for name, rate in found.items() if rate is not None}
    for used in by_version:
        lookups = {name: used[name].lookups for name in rates if name in used}
        if total := sum(lookups.values()):
            return sum(rates[name] * count for name, count in lookups.items()) / total
    return sum(rates.values()) / len(rates) if rates else None


def _table(built: Mapping[str, Any], function: Function) -> dict[str, Any]:
    sizes = {name: built.get(name, 0) for name in ("entries", "aliases", "bytes", "waiting", "unknown")}
    return sizes | {"usable": built.get("function", function.digest) == function.digest}


def _used(usage: HitCounts | None, predicted: float | None) -> dict[str, Any]:
    found = usage or HitCounts(0, 0)
    return {
        "lookups": found.lookups,
        "hits": found.hits,
        "inherited": found.inherited,
        "approximate": found.approximate,
        "hit_rate": found.hits / found.lookups if found.lookups else None,
        "predicted_hit_rate": predicted,
    }


def _building(known: Sequence[TreeVersion]) -> TreeBuild | None:
    row = next((each for each in known if each.status is TreeStatus.BUILDING), None)
    if row is None:
        return None
    return TreeBuild(number=row.number, created_at=row.created_at, progress=row.progress or None)
