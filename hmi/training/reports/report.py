"""What a training tells while it runs and when it is over: plain data without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hmi.adapters import Adapter
from hmi.spec import TaskKind
from hmi.training.plan import TrainConfig
from hmi.training.reports.metrics import Metrics

__all__ = ["OnProgress", "TrainReport", "TrainedAdapter"]


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
    """What came of a training.

    Attributes:
        examples, dev_examples: Learnt from, and judged by; `left_out` others were given, and their text judges.
        labels: In the order of the head's outputs; empty for embeddings.
        label_counts: How often each is true in the part that was learnt from; of words or named parts for tokens.
        epochs: That ran; `best_epoch` (from 1) gave the weights.
        losses: Mean training loss of each epoch.
        dev_scores: The dev part's score after each epoch, of the figure that `dev.name` names; empty without one.
        dev: Of the best epoch; None without a dev part.
        baseline: That figure for always answering the most frequent label, or, for embeddings, for the base model as
            it is; None without a dev part.
        tokens: Of all examples once, as they were cut, special tokens included.
        trained_tokens: Times the epochs.
        seconds: From the call to the end, those before an interruption included.
        base: Digest of the base artifact; `k` of it.
        started: From another adapter's weights.
        resumed_at: Steps that were done when this run took over a checkpoint; None where it began anew.
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
        """Everything counted, reading the base model and judging too."""
        return 1000 * self.seconds / (self.examples + self.dev_examples)

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
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
