"""Planning the next version of a tree: which keys each domain's table holds.

Start with `planner`: `plan_tree` is a pure function of the counts and of the previous version. `previous` describes
that version, `coverage` predicts the plan's hit rates, `backoff` measures what a miss costs under the policy `backoff`.
"""

from __future__ import annotations

from hmi.knowledge.plan.planner import TreePlan, plan_tree
from hmi.knowledge.plan.previous import COMPUTE, WRITE, BuildProgress, PreviousTable, PreviousTree, kept_aliases

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
