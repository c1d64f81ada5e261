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
    """One adapter's evaluation.

    Attributes:
        name: `imported`, or the end of its folder's name: `retrained-k3`.
        base: Name of the base's folder. Of its `layers` the lower `k` are looked up, in a domain with a delta or not.
        left_out: Layers in which the imported adapter has parts and this one cannot, since they are looked up.
        metrics: Every metric of the task, shares 0..1, among them the one that `RetrainReport.metric` names.
        bytes: Of all weights.
        seconds: Of training, and `epochs`; None for the imported adapter.
        to_imported, to_retrained: Score difference to the imported adapter, and to the one retrained at k = 0.
    """

    name: str
    base: str
    k: int
    layers: int
    delta: bool
    left_out: tuple[int, ...]
    metrics: dict[str, float]
    bytes: int
    seconds: float | None = None
    epochs: int | None = None
    to_imported: ScoreDelta | None = None
    to_retrained: ScoreDelta | None = None


@dataclass(frozen=True, slots=True)
class RetrainReport:
    """Attributes:
    metric: Name of the score that is compared.
    test_examples: All adapters are evaluated on these; `truncated` of them were longer than the maximum.
    train_examples, dev_examples: Trained on; used to choose the epoch. Without the latter the last epoch is kept.
    comparisons: The imported adapter, the one retrained at k = 0, then those on the other bases, in their order.
    notes: Caveats for the reader, in sentences.
    """

    task: TaskKind
    metric: str
    test_examples: int
    truncated: int
    train_examples: int
    dev_examples: int
    config: TrainConfig
    comparisons: tuple[AdapterComparison, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self) | {"config": self.config.to_json()}
