"""The report of retraining an adapter on other bases."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from hmi.spec import TaskKind
from hmi.training.plan import TrainConfig
from hmi.training.reports.evaluation import ScoreDelta

IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class AdapterComparison:
    """One adapter's evaluation."""

    name: str  # `imported`, or the end of its folder's name: `retrained-k3`
    base: str  # name of the base's folder
    k: int  # number of its lower layers that are looked up
    layers: int
    delta: bool  # the rows are those of a domain with a delta
    left_out: tuple[int, ...]  # looked-up layers in which the imported adapter has parts and this one cannot
    metrics: dict[str, float]  # every metric of the task, also the one that `RetrainReport.metric` names; shares 0..1
    bytes: int
    seconds: float | None = None  # of training; None for the imported adapter
    epochs: int | None = None
    to_imported: ScoreDelta | None = None  # against the imported adapter
    to_retrained: ScoreDelta | None = None  # against the one retrained at k = 0


@dataclass(frozen=True, slots=True)
class RetrainReport:
    """An imported adapter compared with retrained ones."""

    task: TaskKind
    metric: str  # name of the score that is compared
    test_examples: int  # all adapters are evaluated on these
    truncated: int  # test examples of more tokens than the maximum
    train_examples: int
    dev_examples: int  # used to choose the epoch; without any the last one is kept
    config: TrainConfig
    comparisons: tuple[AdapterComparison, ...]  # imported, retrained at k = 0, then on the other bases in their order
    notes: tuple[str, ...]  # caveats for the reader, in sentences

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"config": self.config.to_json()}
