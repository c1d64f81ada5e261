"""Counting lookups, and what the counts say that holding an n-gram is worth.

`frequency` counts lookups in a worker's memory until they are flushed to the catalog; `key_counts` bounds the memory,
`sharing` says which n-grams a
table may hold, by the tenants that asked.
`demand` turns a domain's decayed counts into savings per n-gram, for its whole subtree.
"""

from __future__ import annotations

from hmi.knowledge.counts.demand import BackoffEstimates, Demand, subtree_demands
from hmi.knowledge.counts.frequency import FrequencyCounter, LookupCounts
from hmi.knowledge.counts.sharing import DomainCounts, SharingRule, Waiting

__all__ = [
    "BackoffEstimates",
    "Demand",
    "DomainCounts",
    "FrequencyCounter",
    "LookupCounts",
    "SharingRule",
    "Waiting",
    "subtree_demands",
]
