"""What the API answers about fine-tuning, as far as the command line reads it."""

from __future__ import annotations

from typing import Any

from hmi.cli.client.answers import Answer

__all__ = ["TuningDetails", "TuningError", "TuningProgress"]


class TuningError(Answer):
    code: str = ""
    message: str = ""


class TuningProgress(Answer):
    """`done` of at most `steps` steps of the optimiser, in epoch `epoch` (from 1)."""

    done: int = 0
    steps: int = 0
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    seconds_left: float | None = None


class TuningDetails(Answer):
    task: str = ""
    base: str = ""
    domain: str = ""
    examples: int = 0
    progress: TuningProgress | None = None


class TuningJob(Answer):
    """`fine_tuned_model` is the model's name, once the job succeeded; `error` says why it failed."""

    id: str
    status: str
    model: str = ""
    fine_tuned_model: str | None = None
    created_at: int = 0
    finished_at: int | None = None
    trained_tokens: int | None = None
    result_files: tuple[str, ...] = ()
    error: TuningError | None = None
    hmi: TuningDetails = TuningDetails()

    @property
    def is_over(self) -> bool:
        """It has reached a status that it will keep."""
        return self.status in {"succeeded", "failed", "cancelled"}


class TuningEvent(Answer):
    id: str
    created_at: int = 0
    level: str = "info"
    message: str = ""
    data: dict[str, Any] | None = None
