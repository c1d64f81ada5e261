"""How far a training is: all that it needs to go on from here as if it had never stopped."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hmi.training.reports import Metrics

__all__ = ["TrainState"]


@dataclass(slots=True)
class TrainState:
    """Attributes:
    order: State of the generator at the beginning of the epoch under way, uint8; the epoch's batches follow from it.
    done: Steps of all epochs; `in_epoch` of them in this one.
    loss_sum: Of this epoch, over its examples so far.
    losses: Mean loss of each whole epoch.
    judged: What the dev part gave after each whole epoch.
    best_epoch: From 1; 0 before the first judgement. `best` are the weights that it left.
    seconds: That earlier runs of this training took.
    """

    order: Tensor
    done: int = 0
    in_epoch: int = 0
    loss_sum: float = 0.0
    trained_tokens: int = 0
    losses: list[float] = field(default_factory=list)
    judged: list[Metrics] = field(default_factory=list)
    best_epoch: int = 0
    best: list[Tensor] | None = None
    seconds: float = 0.0

    @property
    def epochs(self) -> int:
        """Whole ones."""
        return len(self.losses)

    def take_judgement(self, metrics: Metrics) -> bool:
        """Note it as the last epoch's. True where that epoch is the best so far: of equal scores, the lower loss."""
        best = self.judged[self.best_epoch - 1] if self.best_epoch else None
        self.judged.append(metrics)
        if best is None or (metrics.score, -metrics.loss) > (best.score, -best.loss):
            self.best_epoch = self.epochs
            return True
        return False

    def is_over(self, epochs: int, patience: int) -> bool:
        """After the last epoch, or `patience` epochs after the best one."""
        return self.epochs >= epochs or (self.best_epoch > 0 and self.epochs - self.best_epoch >= patience)

    def plain(self) -> dict[str, Any]:
        """All but the tensors, ready for JSON."""
        kept = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        del kept["order"], kept["best"]
        return kept | {"judged": [metrics.to_json() for metrics in self.judged]}

    @classmethod
    def of(cls, plain: dict[str, Any], order: Tensor, best: list[Tensor] | None) -> TrainState:
        """The reverse. Raises `KeyError` or `TypeError` for what `plain` did not give."""
        judged = [Metrics.from_json(each) for each in plain["judged"]]
        return cls(**plain | {"judged": judged, "order": order, "best": best})
