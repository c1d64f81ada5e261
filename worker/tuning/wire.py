"""What a worker and its training process say to each other: JSON, one object a line.

The worker sends an `Order`, and from then on `GO` for each `Step` that it is told of; the end of its sending means
"stop". The process sends steps, and at the end `Done` or `Failed`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from hmi import errors
from hmi.errors import HmiError

__all__ = ["GO", "Done", "Failed", "Order", "Said", "Step", "decode", "encode", "read_order"]

GO = b"go\n"


@dataclass(frozen=True, slots=True)
class Order:
    """What to train. Paths are of this machine.

    Attributes:
        base: Folder of the base model's artifact.
        delta: File of the domain's delta; None where the domain has none.
        start: File of the adapter that training begins with, if it does.
        training, validation: Labelled text, as it was uploaded.
        plan: Of a `hmi.training.plan.plan.TrainingPlan`, as its `to_json` gives it.
        folder: To write into: the checkpoint, which may be there already, then the adapter and the report.
        threads: Of the processor.
        device, dtype: As in `hmi.engine.config.EngineConfig`.
    """

    base: str
    delta: str | None
    start: str | None
    training: str
    validation: str | None
    plan: dict[str, Any]
    folder: str
    threads: int
    device: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of work is done, and the next one waits for the word.

    Attributes:
        cost_seconds: How long it had the device to itself, or would have had it: what others could not use.
        progress: As `hmi.training.reports.report.TrainProgress` has it, after a step of the optimiser; else None.
    """

    cost_seconds: float
    progress: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """Adapter and report lie in the order's folder."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The training ended with an error: the name of its class in `hmi.errors`, and what it says."""

    kind: str
    code: str
    message: str
    param: str | None

    @classmethod
    def of(cls, error: HmiError) -> Failed:
        return cls(type(error).__name__, error.code, error.message, error.param)

    def error(self) -> HmiError:
        found = getattr(errors, self.kind, None)
        kind = found if isinstance(found, type) and issubclass(found, HmiError) else HmiError
        return kind(self.message, code=self.code, param=self.param)


Said = Step | Done | Failed

_NAMES: dict[str, type[Said]] = {"step": Step, "done": Done, "failed": Failed}


def encode(message: Order | Said) -> bytes:
    """One line. Numbers that JSON cannot hold (a loss that is none) become null."""
    name = next((name for name, kind in _NAMES.items() if isinstance(message, kind)), "order")
    return json.dumps(_plain({"is": name, **dataclasses.asdict(message)})).encode() + b"\n"


def read_order(line: bytes) -> Order:
    """Raises `ValueError` or `TypeError` for a line that is no order."""
    fields = json.loads(line)
    del fields["is"]
    return Order(**fields)


def decode(line: bytes) -> Said:
    """Raises `ValueError` for a line that is none of the process's messages."""
    try:
        fields = json.loads(line)
        return _NAMES[fields.pop("is")](**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a message of a training: {line[:100]!r}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
