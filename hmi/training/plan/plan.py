"""What a fine-tuning job trains, decided when the job is created and stored in the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from hmi.spec import TaskKind
from hmi.training.data import FileFormat
from hmi.training.plan.config import TrainConfig


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The part of a job that its worker needs to train."""

    task: TaskKind
    training_form: FileFormat
    validation_form: FileFormat | None  # None without a validation file
    config: TrainConfig  # the worker replaces `device` and `dtype` by its own
    start: str | None = None  # digest of the adapter artifact that training begins with

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task.value,
            "training_form": self.training_form.value,
            "validation_form": None if self.validation_form is None else self.validation_form.value,
            "config": self.config.to_json(),
            "start": self.start,
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """The inverse of `to_json`. Raises `KeyError`, `ValueError` or `TypeError`."""
        form = raw["validation_form"]
        return cls(
            TaskKind(raw["task"]),
            FileFormat(raw["training_form"]),
            None if form is None else FileFormat(form),
            TrainConfig.from_json(raw["config"]),
            raw.get("start"),  # absent in jobs of earlier versions
        )
