"""What a build did, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hmi.knowledge.domains import ancestor_chains, function_run
from hmi.knowledge.ngrams import NO_KEYS, Keys, holds
from hmi.knowledge.plan import PreviousTree, TreePlan
from hmi.knowledge.store import Table

__all__ = ["BuildReport", "DomainReport", "report_domain"]


@dataclass(frozen=True, slots=True)
class DomainReport:
    """What became of one domain's table. An n-gram is held as a row or as an alias.

    Attributes:
        entries: N-grams with a row; `copied` + `computed`.
        aliases: N-grams of which it only says that the ancestors' row will do.
        copied: Rows taken over from the old version, byte for byte.
        computed: Rows computed anew.
        added: N-grams that the old version held neither in the domain, nor above it with the same function, nor below.
        dropped: N-grams that the old table held, and now neither the domain does nor, with its function, one above it.
        hoisted: N-grams that the old version held only below this domain.
        bytes: Of the table on disk.
        bytes_before: Of the old table.
        predicted_hit_rate: 0..1, to be expected of lookups to come, see `coverage`; None where the domain was asked for
            nothing.
        alias_share: What the plan took for the share of aliases among n-grams that ancestors of another function hold;
            None where there are no such ancestors.
    """

    entries: int
    aliases: int
    copied: int
    computed: int
    added: int
    dropped: int
    hoisted: int
    bytes: int
    bytes_before: int
    predicted_hit_rate: float | None
    alias_share: float | None


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The table of each domain lies in the folder of its name.

    Attributes:
        computed: Rows computed for this version, each once for each function, those that became aliases included.
        tolerance: Relative error up to which an ancestor's row stands for a domain's own.
    """

    domains: Mapping[str, DomainReport]
    computed: int
    tolerance: float


def report_domain(domain: str, plan: TreePlan, old: PreviousTree, copied: int, table: Table) -> DomainReport:
    """Compare a domain's planned n-grams, and the table that was made of them, with the old version.

    Args:
        copied: Rows that were taken over.
    """
    lines = ancestor_chains(plan.parents)
    segment, _ = function_run(lines[domain], {each: function.digest for each, function in plan.functions.items()})
    keys = plan.tables[domain]
    was_here = holds(_held(old, segment), keys)
    was_below = holds(_held(old, [each for each, line in lines.items() if each != domain and domain in line]), keys)
    now = [plan.tables[each] for each in segment]
    kept = sum(int(np.count_nonzero(holds(now, each))) for each in _held(old, [domain]))
    return DomainReport(
        entries=table.meta.entries,
        aliases=table.meta.aliases,
        copied=copied,
        computed=table.meta.entries - copied,
        added=int(np.count_nonzero(~was_here & ~was_below)),
        dropped=sum(len(each) for each in _held(old, [domain])) - kept,
        hoisted=int(np.count_nonzero(was_below & ~was_here)),
        bytes=table.bytes,
        bytes_before=old.sizes.get(domain, 0),
        predicted_hit_rate=plan.predicted.get(domain),
        alias_share=plan.alias_shares.get(domain),
    )


def _held(old: PreviousTree, domains: list[str] | tuple[str, ...]) -> list[Keys]:
    tables = [old.held[each] for each in domains if each in old.held]
    return [each for table in tables for each in (table.keys, table.aliases)] or [NO_KEYS]
