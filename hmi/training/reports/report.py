"""The progress of a training and its report at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hmi.adapters import Adapter
from hmi.spec import TaskKind
from hmi.training.plan import TrainConfig
from hmi.training.reports.metrics import Metrics


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """The state of a training after `done` of at most `steps` optimizer steps."""

    done: int
    steps: int
    loss: float  # of the last step, or the mean of the last few
    seconds_left: float  # an estimate that does not consider early stopping
    epoch: int = 1  # from 1, of at most `epochs`; trainings that only count steps have one epoch
    epochs: int = 1
    epoch_loss: float | None = None  # mean loss of the epoch so far; None where epochs are not counted
    dev: Metrics | None = None  # after the previous epoch; None before the first evaluation, or without a dev set
    trained_tokens: int = 0  # tokens of all steps, special tokens included


OnProgress = Callable[[TrainProgress], None]
"""Called after every step. If it raises, the checkpoint, if there is one, is saved and the training ends."""


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The outcome of a training."""

    task: TaskKind
    examples: int  # in the training set
    dev_examples: int
    labels: tuple[str, ...]  # in the order of the head's outputs; empty without a head
    label_counts: tuple[int, ...]  # how often each is true in the training set; of words or entities for tokens
    epochs: int  # that were run
    best_epoch: int  # from 1; it gave the weights
    losses: tuple[float, ...]  # mean training loss of each epoch
    dev_scores: tuple[float, ...]  # after each epoch, of the metric `dev.name`; empty without a dev set
    dev: Metrics | None  # metrics of the best epoch; None without a dev set
    # Score of always answering the most frequent label, or of the base model if there are no labels.
    baseline: float | None
    tokens: int  # of all examples once, after cutting, special tokens included
    trained_tokens: int  # of all steps
    seconds: float  # from the call to the end, earlier runs of an interrupted training included
    base: str  # digest of the base artifact
    k: int
    config: TrainConfig
    left_out: int = 0  # examples that were not trained on, because their text is in the dev set
    started: bool = False  # from another adapter's weights
    resumed_at: int | None = None  # steps done when a checkpoint was resumed; None if training began anew

    @property
    def seconds_per_thousand_examples(self) -> float:
        """With loading the base model and evaluation included."""
        return 1000 * self.seconds / (self.examples + self.dev_examples)

    def to_json(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in ("dev", "config")}
        return fields | {
            "dev": self.dev.to_json() if self.dev else None,
            "config": self.config.to_json(),
            "seconds_per_thousand_examples": self.seconds_per_thousand_examples,
        }


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    adapter: Adapter
    report: TrainReport
