"""What a fine-tuning job trains, settled when it was made: plain data for its row in the catalog, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from hmi.spec import TaskKind
from hmi.training.data import FileFormat
from hmi.training.plan.config import TrainConfig

__all__ = ["TrainingPlan"]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Attributes:
    task: What is learnt; the files were found to be for it.
    training_form, validation_form: Of the files; None where there is no second one.
    config: But for `device` and `dtype`, which are those of the worker that trains.
    start: Digest of the adapter's artifact that training begins with.
    """

    task: TaskKind
    training_form: FileFormat
    validation_form: FileFormat | None
    config: TrainConfig
    start: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "task": self.task.value,
            "training_form": self.training_form.value,
            "validation_form": None if self.validation_form is None else self.validation_form.value,
            "config": self.config.to_json(),
            "start": self.start,
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """What `to_json` gave. Raises `KeyError`, `ValueError` or `TypeError` for anything else."""
        form = raw["validation_form"]
        return cls(
            TaskKind(raw["task"]),
            FileFormat(raw["training_form"]),
            None if form is None else FileFormat(form),
            TrainConfig.from_json(raw["config"]),
            raw.get("start"),  # jobs of earlier versions began with nothing
        )
