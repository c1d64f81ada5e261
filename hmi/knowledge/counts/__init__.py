"""TODO"""

from __future__ import annotations

from hmi.knowledge.counts.demand import BigramGain, DomainCounts, Errors, subtree_demands
from hmi.knowledge.counts.frequency import FrequencyCounter, FrequencyDelta

__all__ = ["BigramGain", "DomainCounts", "Errors", "FrequencyCounter", "FrequencyDelta", "subtree_demands"]
