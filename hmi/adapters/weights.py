"""The weights of an adapter's parts: float32 arrays in host memory."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from hmi.errors import AdapterRefused

Array = NDArray[np.float32]

# A batch gathers each row's matrices. Without a bound, one tenant's adapter would take the memory of all batches.
MAX_RANK = 1024
_MAX_ESTIMATOR_SIZE = 8192


class Activation(StrEnum):
    """Elementwise functions of bottlenecks and heads. GELU is the exact one (erf), not its tanh approximation."""

    RELU = "relu"
    GELU = "gelu"
    SWISH = "swish"
    TANH = "tanh"
    IDENTITY = "identity"


class Weights:
    """Base of dataclasses that hold arrays."""

    __slots__ = ()

    def arrays(self) -> dict[str, Array]:
        """Return the arrays that are present, by field name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays().values())


@dataclass(frozen=True, slots=True, eq=False)
class Lora(Weights):
    """A low-rank addition to one linear layer: y += (x a^T) b^T."""

    a: Array  # [rank, in]
    b: Array  # [out, rank]; the scaling (alpha / rank, or alpha / sqrt(rank)) is multiplied in.

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    def check(self, name: str, shape: tuple[int, int]) -> None:
        """Raises `AdapterRefused` unless the pair fits a layer of `shape` (in, out)."""
        rank = _check_rank(f"{name}.a", self.a, shape[0], name)
        require_array(f"{name}.a", self.a, (rank, shape[0]))
        require_array(f"{name}.b", self.b, (shape[1], rank))


@dataclass(frozen=True, slots=True, eq=False)
class Bottleneck(Weights):
    """A bottleneck behind a sub-layer: h + up(act(down(x))). A fixed scaling is multiplied into `up` and `up_bias`."""

    down: Array  # [rank, hidden]
    down_bias: Array  # [rank]
    up: Array  # [hidden, rank]
    up_bias: Array  # [hidden]

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    def check(self, name: str, hidden: int) -> None:
        """Raises `AdapterRefused` unless all four arrays fit states of width `hidden`."""
        rank = _check_rank(f"{name}.down", self.down, hidden, name)
        shapes = {"down": (rank, hidden), "down_bias": (rank,), "up": (hidden, rank), "up_bias": (hidden,)}
        for field, array in self.arrays().items():
            require_array(f"{name}.{field}", array, shapes[field])


@dataclass(frozen=True, slots=True, eq=False)
class Estimator(Weights):
    """The weights of a `hmi.models.layers.RowEstimator`, which belongs to a domain's delta."""

    inner: Array  # [size, 3 * hidden]
    inner_bias: Array  # [size]
    outer: Array  # [hidden, size]
    outer_bias: Array  # [hidden]
    linear: Array  # [hidden, 3 * hidden]
    error: Array  # [1]

    @property
    def size(self) -> int:
        return int(self.inner.shape[0])

    def check(self, hidden: int) -> None:
        """Raises `AdapterRefused` unless all arrays fit rows of width `hidden`."""
        size = self.inner.shape[0] if self.inner.ndim == 2 else 0
        if not 1 <= size <= _MAX_ESTIMATOR_SIZE:
            raise AdapterRefused(
                f"estimator.inner has shape {list(self.inner.shape)}, expected [1..{_MAX_ESTIMATOR_SIZE}, {3 * hidden}]"
            )
        shapes = {
            "inner": (size, 3 * hidden),
            "inner_bias": (size,),
            "outer": (hidden, size),
            "outer_bias": (hidden,),
            "linear": (hidden, 3 * hidden),
            "error": (1,),
        }
        for name, array in self.arrays().items():
            require_array(f"estimator.{name}", array, shapes[name])
        if not 0 <= self.error[0] <= 1:
            raise AdapterRefused(f"estimator.error must lie between 0 and 1, not {self.error[0]}")


def require_array(name: str, array: Array, shape: tuple[int, ...]) -> None:
    """Raises `AdapterRefused` naming the tensor unless it is a finite float32 array of exactly `shape`."""
    if array.dtype != np.float32:
        raise AdapterRefused(f"{name} is {array.dtype}, expected float32")
    if array.shape != shape:
        raise AdapterRefused(f"{name} has shape {list(array.shape)}, expected {list(shape)}")
    if not np.isfinite(array).all():
        raise AdapterRefused(f"{name} holds NaN or infinite values")


def _check_rank(tensor: str, array: Array, inputs: int, name: str) -> int:
    rank = int(array.shape[0]) if array.ndim == 2 else 0
    if rank < 1:
        raise AdapterRefused(f"{tensor} has shape {list(array.shape)}, expected [rank, {inputs}] with rank >= 1")
    if rank > MAX_RANK:
        raise AdapterRefused(f"{name} has rank {rank}; at most {MAX_RANK} is allowed")
    return rank
