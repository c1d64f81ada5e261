"""Plans as the worker makes them, of counts alone: one function, no delta, no rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hmi.knowledge import Parents, functions_of
from hmi.knowledge.counts import DomainCounts
from hmi.knowledge.plan import PreviousTable, TreePlan, plan_tree
from hmi.knowledge.store import entry_bytes
from hmi.spec import HPLMSpec

__all__ = ["Planner"]


@dataclass(frozen=True, slots=True)
class Planner:
    """For one base model; `base` is its digest."""

    spec: HPLMSpec
    base: str

    @property
    def entry_bytes(self) -> int:
        return entry_bytes(self.spec.row_dtype, self.spec.hidden_size)

    def plan(
        self,
        counts: Mapping[str, DomainCounts],
        parents: Parents,
        node_entries: int | None,
        old: Mapping[str, PreviousTable] | None = None,
    ) -> TreePlan:
        """The next version within so many entries for each domain's own table; None is no limit."""
        most = sum(len(each.keys) for each in counts.values()) if node_entries is None else node_entries
        functions = functions_of(self.base, parents, {})
        spec = self.spec
        return plan_tree(
            counts, parents, functions, old or {}, spec.vocab_size, most * self.entry_bytes, self.entry_bytes
        )
