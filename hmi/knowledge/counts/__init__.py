"""Counting lookups, and what the counts say that holding an n-gram is worth.

`frequency` counts lookups in a worker's memory until they are flushed to the catalog; `key_counts` bounds the memory.
`demand` turns a domain's decayed counts into savings per n-gram, for its whole subtree.
"""

from __future__ import annotations

from hmi.knowledge.counts.demand import BackoffEstimates, Demand, DomainCounts, subtree_demands
from hmi.knowledge.counts.frequency import FrequencyCounter, LookupCounts

__all__ = ["BackoffEstimates", "Demand", "DomainCounts", "FrequencyCounter", "LookupCounts", "subtree_demands"]
