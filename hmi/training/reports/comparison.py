"""What comes of training an adapter again on other bases: plain data without torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from hmi.spec import TaskKind
from hmi.training.plan import TrainConfig
from hmi.training.reports.score_delta import ScoreDelta

__all__ = ["IMPORTED", "AdapterComparison", "RetrainReport"]

IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class AdapterComparison:
    """How one adapter does.

    Attributes:
        name: `imported`, or what its folder's name ends in: `retrained-k3`.
        base: Name of the base's folder; of its `layers` the lower `k` are looked up, in a domain with a delta or not.
        left_out: Layers in which the imported adapter has parts and this one cannot have any, being looked up.
        figures: Every figure of the task, shares 0..1, the score that `RetrainReport.figure` names among them.
        bytes: Of all weights.
        seconds: Of training, and `epochs`; None for the imported one.
        to_imported, to_retrained: How much more it scores than that one, and than the one retrained at k = 0.
    """

    name: str
    base: str
    k: int
    layers: int
    delta: bool
    left_out: tuple[int, ...]
    figures: dict[str, float]
    bytes: int
    seconds: float | None = None
    epochs: int | None = None
    to_imported: ScoreDelta | None = None
    to_retrained: ScoreDelta | None = None


@dataclass(frozen=True, slots=True)
class RetrainReport:
    """Attributes:
    figure: The name of the score that differences are of.
    texts: That all were judged on; `cut` of them were too long and were cut.
    learnt, choosing: Examples that were trained on, and that chose the epoch; without the latter the last one is kept.
    standings: The imported adapter, the one retrained at k = 0, then those on the other bases, in their order.
    notes: What a reader has to know, in sentences.
    """

    task: TaskKind
    figure: str
    texts: int
    cut: int
    learnt: int
    choosing: int
    config: TrainConfig
    standings: tuple[AdapterComparison, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dataclasses.asdict(self) | {"config": self.config.to_json()}
