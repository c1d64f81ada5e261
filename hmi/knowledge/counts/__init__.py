"""TODO"""

from __future__ import annotations

from hmi.knowledge.counts.demand import BackoffEstimates, DomainCounts, subtree_demands
from hmi.knowledge.counts.frequency import FrequencyCounter, LookupCounts

__all__ = ["BackoffEstimates", "DomainCounts", "FrequencyCounter", "LookupCounts", "subtree_demands"]
