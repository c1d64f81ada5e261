"""How much is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.coverage.traffic import PARTIAL, WHOLE, Drift

__all__ = ["FULL", "PARTS", "QUICK", "CoveragePlan"]

PARTS = ("curve", "drift", "pays")


@dataclass(frozen=True, slots=True)
class CoveragePlan:
    """Attributes:
    gloss_share: Of the glosses of each subject, the share that is used at all.
    budgets: Entries of a domain's own table, for the curve; None is no limit.
    node_entries: The same, for the replay.
    periods: Rebuilds in each half of the replay.
    half_lives: Of the counts, in periods: the first is what the versions that engines serve are planned with, the
        others are replayed beside it. Services rebuild every 6 hours and halve a count in 7 days: 28.
    drifts: Others that are replayed beside the partial one.
    drift_k: Layers looked up by the model that serves the replay.
    cases: Shape and k of each curve over hit rates.
    hit_rates: Where those curves are measured.
    portion: Texts in one round of an engine.
    warming: Texts served before the first round, so that the miss_cache holds what it would.
    """

    device: str = "auto"
    dtype: str = "auto"
    parts: Sequence[str] = PARTS
    gloss_share: float = 1.0
    budgets: Sequence[int | None] = (500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, None)
    node_entries: int = 50_000
    periods: int = 4
    half_lives: Sequence[float | None] = (28.0, None, 4.0, 1.0)
    drifts: Sequence[Drift] = (
        dataclasses.replace(PARTIAL, backward=True),
        WHOLE,
        dataclasses.replace(WHOLE, backward=True),
    )
    drift_k: int = 3
    cases: Sequence[tuple[str, int]] = (("minilm", 3), ("base", 6))
    hit_rates: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0)
    rounds: int = 3
    portion: int = 600
    warming: int = 3_000

    def with_changes(self, **changes: object) -> CoveragePlan:
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


FULL = CoveragePlan()
QUICK = CoveragePlan(
    gloss_share=0.2,
    budgets=(1_000, 5_000, 20_000, None),
    node_entries=2_000,
    half_lives=(28.0, 1.0),
    drifts=(WHOLE,),
    cases=(("minilm", 3),),
    hit_rates=(0.0, 0.4, 0.7, 1.0),
    rounds=2,
    portion=100,
    warming=200,
)
