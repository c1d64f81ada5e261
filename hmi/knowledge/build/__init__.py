"""TODO"""

from __future__ import annotations

from hmi.knowledge.build.tree_build import BuildReport, build_tree, verify_sample

__all__ = ["BuildReport", "build_tree", "verify_sample"]
