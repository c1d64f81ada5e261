"""Counting lookups, and what the counts say that holding an n-gram is worth.

`frequency` counts lookups in a worker's memory until they are flushed to the catalog; `key_counts` bounds the memory,
`requesters` keeps which tenants asked.
`demand` turns a domain's decayed counts into savings per n-gram, for its whole subtree.
"""

from __future__ import annotations

from hmi.knowledge.counts.demand import BackoffEstimates, Demand, DomainCounts, subtree_demands
from hmi.knowledge.counts.frequency import FrequencyCounter, LookupCounts
from hmi.knowledge.counts.requesters import PUBLIC, TENANT_BITS, bitmap_of, may_be_held

__all__ = [
    "PUBLIC",
    "TENANT_BITS",
    "BackoffEstimates",
    "Demand",
    "DomainCounts",
    "FrequencyCounter",
    "LookupCounts",
    "bitmap_of",
    "may_be_held",
    "subtree_demands",
]
