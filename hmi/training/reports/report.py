"""The progress of a training, its report at the end, and the report of retraining an adapter on other bases."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hmi.adapters import Adapter
from hmi.spec import TaskKind
from hmi.training.plan import TrainConfig
from hmi.training.reports.evaluation import ScoreDelta
from hmi.training.reports.metrics import Metrics

IMPORTED = "imported"  # the name of the imported adapter in a `RetrainReport`


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
