"""TODO"""

from __future__ import annotations

from hmi.knowledge.plan.backoff_error import estimated
from hmi.knowledge.plan.planner import DomainCounts, TreePlan, plan_tree
from hmi.knowledge.plan.previous import PreviousTable, PreviousTree, staying_marks
from hmi.knowledge.plan.progress import COMPUTE, WRITE, Progress

__all__ = [
    "COMPUTE",
    "WRITE",
    "DomainCounts",
    "PreviousTable",
    "PreviousTree",
    "Progress",
    "TreePlan",
    "estimated",
    "plan_tree",
    "staying_marks",
]
