"""What a build did, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hmi.knowledge.builder import TreePlan, holds
from hmi.knowledge.hierarchy import lines_of
from hmi.knowledge.ngrams import Keys

__all__ = ["BuildReport", "DomainReport", "report_domain"]


@dataclass(frozen=True, slots=True)
class DomainReport:
    """What became of one domain's table.

    Attributes:
        entries: N-grams now; `copied` + `computed`.
        copied: Rows taken over from the old version, byte for byte.
        computed: Rows computed anew.
        added: N-grams that the old version held neither on this domain's line nor below it.
        dropped: N-grams of the old table that the new version holds nowhere on the line.
        hoisted: N-grams that the old version held only below this domain.
        bytes: Of the table on disk.
    """

    entries: int
    copied: int
    computed: int
    added: int
    dropped: int
    hoisted: int
    bytes: int


@dataclass(frozen=True, slots=True)
class BuildReport:
    """By domain; the table of each lies in the folder of its name."""

    domains: Mapping[str, DomainReport]


def report_domain(domain: str, plan: TreePlan, old: Mapping[str, Keys], copied: int, size: int) -> DomainReport:
    """Compare a domain's planned table with the old version's tables (ascending keys by domain).

    Args:
        copied: Rows that were taken over.
        size: Bytes of the table on disk.
    """
    lines = lines_of(plan.parents)
    keys = plan.tables[domain]
    was_on_line = holds([old[each] for each in lines[domain] if each in old], keys)
    below = [each for each, line in lines.items() if each != domain and domain in line]
    was_below = holds([old[each] for each in below if each in old], keys)
    before = old.get(domain, np.empty(0, np.uint64))
    kept = holds([plan.tables[each] for each in lines[domain]], before)
    return DomainReport(
        entries=len(keys),
        copied=copied,
        computed=len(keys) - copied,
        added=int(np.count_nonzero(~was_on_line & ~was_below)),
        dropped=int(np.count_nonzero(~kept)),
        hoisted=int(np.count_nonzero(was_below & ~was_on_line)),
        bytes=size,
    )
