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
    """The state of a training after `done` of at most `steps` optimizer steps.

    Attributes:
        loss: Of the last step, or the mean of the last few.
        seconds_left: An estimate that does not consider early stopping.
        epoch: From 1, of at most `epochs`; trainings that only count steps have one epoch.
        epoch_loss: Mean loss of the epoch so far; None where epochs are not counted.
        dev: Metrics after the previous epoch; None before the first evaluation, or without a dev set.
        trained_tokens: Tokens of all steps, special tokens included.
    """

    done: int
    steps: int
    loss: float
    seconds_left: float
    epoch: int = 1
    epochs: int = 1
    epoch_loss: float | None = None
    dev: Metrics | None = None
    trained_tokens: int = 0


OnProgress = Callable[[TrainProgress], None]


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The outcome of a training.

    Attributes:
        examples, dev_examples: Sizes of the training and the dev set.
        labels: In the order of the head's outputs; empty without a head.
        label_counts: How often each is true in the training set; of words or entities for tokens.
        epochs: That were run; `best_epoch` (from 1) gave the weights.
        losses: Mean training loss of each epoch.
        dev_scores: Score on the dev set after each epoch, of the metric `dev.name`; empty without a dev set.
        dev: Metrics of the best epoch; None without a dev set.
        baseline: Score of always answering the most frequent label or, without labels, of the base model as it is; None
            without a dev set.
        tokens: Of all examples once, after cutting, special tokens included; `trained_tokens` of all steps.
        seconds: From the call to the end, earlier runs of an interrupted training included.
        base: Digest of the base artifact; `k` of it.
        left_out: Examples that were not trained on, because their text is in the dev set.
        started: From another adapter's weights.
        resumed_at: Steps done when a checkpoint was resumed; None if training began anew.
    """

    task: TaskKind
    examples: int
    dev_examples: int
    labels: tuple[str, ...]
    label_counts: tuple[int, ...]
    epochs: int
    best_epoch: int
    losses: tuple[float, ...]
    dev_scores: tuple[float, ...]
    dev: Metrics | None
    baseline: float | None
    tokens: int
    trained_tokens: int
    seconds: float
    base: str
    k: int
    config: TrainConfig
    left_out: int = 0
    started: bool = False
    resumed_at: int | None = None

    @property
    def seconds_per_thousand_examples(self) -> float:
        """With loading the base model and evaluation included."""
        return 1000 * self.seconds / (self.examples + self.dev_examples)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
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
