"""The tables of a tree's versions, opened for their keys and aliases; rows are not read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import structlog
from sqlalchemy.orm import Session

from api.services import Services
from hmi.catalog import RegisteredBase, TreeStatus, TreeVersion, domains, trees
from hmi.errors import Conflict, Corrupt, NotFound
from hmi.knowledge import Parents
from hmi.knowledge.lookup import TreeContents
from hmi.knowledge.store import KEY_FILES, Table

_log = structlog.get_logger(__name__)


def find_version(session: Session, base: RegisteredBase, number: int, *, param: str) -> TreeVersion:
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


def parents_of(session: Session, version: TreeVersion) -> dict[str, str | None]:
    """The parents of a version's domains when it was built; today's where it has not recorded them."""
    built = version.report.get("domains", {})
    found = {name: each.get("parent") for name, each in built.items() if "parent" in each}
    whole = bool(found) and all(parent is None or parent in found for parent in found.values())
    return found if whole and set(version.tables) <= set(found) else domains.parents(session)


def open_version(services: Services, version: TreeVersion, parents: Parents) -> TreeContents:
    """All tables of a version except damaged ones."""
    return TreeContents(open_tables(services, version.tables, version.tables), parents)


def open_tables(services: Services, tables: Mapping[str, str], chosen: Iterable[str]) -> dict[str, Table]:
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
