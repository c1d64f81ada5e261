"""What a build did, in numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from hmi.knowledge.counts import Waiting
from hmi.knowledge.domains import ancestor_chains, function_run
from hmi.knowledge.ngrams import Keys, holds
from hmi.knowledge.plan import PreviousTree, TreePlan
from hmi.knowledge.store import Table


@dataclass(frozen=True, slots=True)
class DomainReport:
    """One domain's new table, compared with the previous version. A domain holds an n-gram as a row or as an alias."""

    entries: int  # rows; `copied` + `computed`
    aliases: int
    copied: int  # from the previous version, byte for byte
    computed: int
    added: int  # previously held neither in the domain, nor above it with the same function, nor below it
    dropped: int  # previously held, and now neither by the domain nor above it with the same function
    hoisted: int  # previously held only below the domain
    bytes: int  # on disk
    bytes_before: int
    predicted_hit_rate: float | None  # 0..1, see `plan.coverage`; None for a domain without lookups
    alias_share: float | None  # `TreePlan.alias_shares`; None for a domain without foreign ancestors
    waiting: int = 0  # n-grams that are counted, and for which more tenants have to ask
    unknown: int = 0  # n-grams that are counted, and of which it is not known who asked


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The table of each domain is in the folder of its name."""

    domains: Mapping[str, DomainReport]
    computed: int  # rows, each once for each function, including those that became aliases
    tolerance: float  # relative error up to which an alias replaces a row


def report_domain(domain: str, plan: TreePlan, previous: PreviousTree, copied: int, table: Table) -> DomainReport:
    """Compare the domain's plan, and the table that was written with `copied` rows, with the previous version."""
    chains = ancestor_chains(plan.parents)
    run, _ = function_run(chains[domain], {each: function.digest for each, function in plan.functions.items()})
    keys = plan.tables[domain]
    below = [each for each, chain in chains.items() if each != domain and domain in chain]
    was_here, was_below = (holds(_held(previous, domains), keys) for domains in (run, below))
    waiting = plan.waiting.get(domain, Waiting())
    before, now = _held(previous, [domain]), [plan.tables[each] for each in run]
    return DomainReport(
        entries=table.meta.entries,
        aliases=table.meta.aliases,
        copied=copied,
        computed=table.meta.entries - copied,
        added=int(np.count_nonzero(~was_here & ~was_below)),
        dropped=sum(int(np.count_nonzero(~holds(now, each))) for each in before),
        hoisted=int(np.count_nonzero(was_below & ~was_here)),
        bytes=table.bytes,
        bytes_before=previous.sizes.get(domain, 0),
        predicted_hit_rate=plan.predicted.get(domain),
        alias_share=plan.alias_shares.get(domain),
        waiting=waiting.tenants,
        unknown=waiting.origin,
    )


def _held(previous: PreviousTree, domains: Iterable[str]) -> list[Keys]:
    tables = [previous.held[each] for each in domains if each in previous.held]
    return [each for table in tables for each in (table.keys, table.aliases)]
