"""What a fine-tuning job trains, decided when the job is created and stored in the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from hmi.spec import TaskKind
from hmi.training.data import FileFormat
from hmi.training.plan.config import TrainConfig


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Attributes:
    task: The task of the files.
    training_form, validation_form: Formats of the files; None without a validation file.
    config: The worker replaces `device` and `dtype` by its own.
    start: Digest of the adapter artifact that training begins with.
    """

    task: TaskKind
    training_form: FileFormat
    validation_form: FileFormat | None
    config: TrainConfig
    start: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
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
