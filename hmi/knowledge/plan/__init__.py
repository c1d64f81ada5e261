"""TODO"""

from __future__ import annotations

from hmi.knowledge.plan.planner import TreePlan, plan_tree
from hmi.knowledge.plan.previous import PreviousTable, PreviousTree, kept_aliases
from hmi.knowledge.plan.progress import COMPUTE, WRITE, BuildProgress

__all__ = [
    "COMPUTE",
    "WRITE",
    "BuildProgress",
    "PreviousTable",
    "PreviousTree",
    "TreePlan",
    "kept_aliases",
    "plan_tree",
]
