"""The messages between a worker and its training process: JSON, one object a line.

The worker sends an `Order`, and from then on `GO` after each `Step`; closing its end stops the training. The process
sends steps, and at the end `Done` or `Failed`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from hmi import errors
from hmi.errors import HmiError

GO = b"go\n"

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, config=_STRICT)
class Order:
    """What to train. Paths are of this machine."""

    base: str  # folder of the base model's artifact
    delta: str | None  # file of the domain's delta, if it has one
    start: str | None  # file of the adapter that training starts from, if any
    training: str  # labelled text, as it was uploaded
    validation: str | None
    plan: dict[str, Any]  # of `hmi.training.plan.TrainingPlan`, as its `to_json` gives it
    folder: str  # for the checkpoint, which may be there already, then the adapter and the report
    threads: int
    device: str
    dtype: str


@dataclass(frozen=True, slots=True, config=_STRICT)
class Step:
    """A piece of work is done; the next one waits for `GO`."""

    cost_seconds: float  # device time that others could not use
    progress: dict[str, Any] | None = None  # after a step of the optimiser, as a dict of the training's progress
    kind: Literal["step"] = "step"


@dataclass(frozen=True, slots=True, config=_STRICT)
class Done:
    """Adapter and report are in the order's folder."""

    kind: Literal["done"] = "done"


@dataclass(frozen=True, slots=True, config=_STRICT)
class Failed:
    """The training failed with an error of this class in `hmi.errors`."""

    error_class: str
    code: str
    message: str
    param: str | None
    kind: Literal["failed"] = "failed"

    @classmethod
    def of(cls, error: HmiError) -> Failed:
        return cls(type(error).__name__, error.code, error.message, error.param)

    def error(self) -> HmiError:
        found = getattr(errors, self.error_class, None)
        kind = found if isinstance(found, type) and issubclass(found, HmiError) else HmiError
        return kind(self.message, code=self.code, param=self.param)


Reply = Annotated[Step | Done | Failed, Field(discriminator="kind")]

_ORDER = TypeAdapter(Order)
_REPLY: TypeAdapter[Step | Done | Failed] = TypeAdapter(Reply)


def encode(message: Order | Step | Done | Failed) -> bytes:
    """Return one line. Numbers that JSON cannot hold, such as a loss that is not a number, become null."""
    adapter: TypeAdapter[Any] = _ORDER if isinstance(message, Order) else _REPLY
    return adapter.dump_json(message) + b"\n"


def read_order(line: bytes) -> Order:
    """Raises `ValueError` for a line that is no order."""
    return _ORDER.validate_json(line)


def decode(line: bytes) -> Step | Done | Failed:
    """Raises `ValueError` for a line that is none of the process's messages."""
    try:
        return _REPLY.validate_json(line)
    except ValidationError as error:
        raise ValueError(f"not a message of a training: {line[:100]!r}") from error
