"""Building the next version of a tree: from a plan to table folders, and a check of the result.

Start with `tree_build`: `build_tree` copies the rows that the previous version has and computes the others.
`row_chunks` keeps computed rows on disk, so that a killed build resumes. `verify` samples the result, `report`
describes it.
"""

from __future__ import annotations

from hmi.knowledge.build.report import BuildReport
from hmi.knowledge.build.tree_build import build_tree
from hmi.knowledge.build.verify import verify_sample

__all__ = ["BuildReport", "build_tree", "verify_sample"]
