"""The parts of an adapter as they lie in host memory: plain float32 arrays with their shapes checked by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from hmi.errors import AdapterRefused

__all__ = [
    "MAX_ESTIMATOR_SIZE",
    "MAX_LABELS",
    "MAX_RANK",
    "MAX_TOKEN_LABELS",
    "Activation",
    "Array",
    "Bottleneck",
    "Estimator",
    "Head",
    "Lora",
    "Pooling",
    "Transform",
    "label_fault",
    "require_array",
]

Array = NDArray[np.float32]

# A batch gathers each row's matrices, and pads its rows to the largest head: without a bound, one tenant's
# adapter would take the memory that everybody's batches run in.
MAX_RANK = 1024
MAX_LABELS = 4096
MAX_ESTIMATOR_SIZE = 8192
MAX_TOKEN_LABELS = 1024  # every token of a batch has so many logits
_MAX_LABEL_CHARACTERS = 256  # every answer repeats one


class Activation(StrEnum):
    """Elementwise functions of bottlenecks and heads. GELU is the exact one (erf), not its tanh approximation."""

    RELU = "relu"
    GELU = "gelu"
    SWISH = "swish"
    TANH = "tanh"
    IDENTITY = "identity"


class Pooling(StrEnum):
    """How a sequence becomes one vector: its first token's state, that of its last one, or the mean over all.

    In a decoder the first token sees nothing else; in an encoder the last one is as good as any. `TOKENS` is none at
    all: the head answers for every token.
    """

    CLS = "cls"
    LAST = "last"
    MEAN = "mean"
    TOKENS = "tokens"


class Transform(StrEnum):
    """What happens between pooling and the output layer.

    `POOLER` is dense + tanh: the base model's own pooler, or the adapter's copy where the head has a
    `dense`. `DENSE` is the head's own dense and activation. `POOLER_DENSE` is the base model's pooler and
    then the head's own dense and activation.
    """

    NONE = "none"
    POOLER = "pooler"
    DENSE = "dense"
    POOLER_DENSE = "pooler_dense"


def require_array(name: str, array: Array, shape: tuple[int, ...]) -> None:
    """Raises `AdapterRefused` naming the tensor unless it is a finite float32 array of exactly `shape`."""
    if array.dtype != np.float32:
        raise AdapterRefused(f"{name} is {array.dtype}, expected float32")
    if array.shape != shape:
        raise AdapterRefused(f"{name} has shape {list(array.shape)}, expected {list(shape)}")
    if not np.isfinite(array).all():
        raise AdapterRefused(f"{name} holds NaN or infinite values")


def _require_rank(name: str, rank: int) -> None:
    if rank > MAX_RANK:
        raise AdapterRefused(f"{name} has rank {rank}; at most {MAX_RANK} is allowed")


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """A low-rank addition to one linear layer: y += (x a^T) b^T.

    Attributes:
        a: [rank, in]
        b: [out, rank]; the scaling (alpha / rank, or alpha / sqrt(rank)) is already multiplied in.
    """

    a: Array
    b: Array

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    @property
    def nbytes(self) -> int:
        return self.a.nbytes + self.b.nbytes

    def check(self, name: str, shape: tuple[int, int]) -> None:
        """Raises `AdapterRefused` unless the pair fits a layer of `shape` (in, out)."""
        rank = self.a.shape[0] if self.a.ndim == 2 else 0
        if rank < 1:
            raise AdapterRefused(f"{name}.a has shape {list(self.a.shape)}, expected [rank, {shape[0]}] with rank >= 1")
        _require_rank(name, rank)
        require_array(f"{name}.a", self.a, (rank, shape[0]))
        require_array(f"{name}.b", self.b, (shape[1], rank))


@dataclass(frozen=True, slots=True, eq=False)
class Bottleneck:
    """A bottleneck behind a sub-layer: h + up(act(down(x))). A fixed scaling is multiplied into `up` and `up_bias`.

    Attributes:
        down: [rank, hidden]
        down_bias: [rank]
        up: [hidden, rank]
        up_bias: [hidden]
    """

    down: Array
    down_bias: Array
    up: Array
    up_bias: Array

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def nbytes(self) -> int:
        return self.down.nbytes + self.down_bias.nbytes + self.up.nbytes + self.up_bias.nbytes

    def check(self, name: str, hidden: int) -> None:
        """Raises `AdapterRefused` unless all four fit states of width `hidden`."""
        rank = self.down.shape[0] if self.down.ndim == 2 else 0
        if rank < 1:
            found = list(self.down.shape)
            raise AdapterRefused(f"{name}.down has shape {found}, expected [rank, {hidden}] with rank >= 1")
        _require_rank(name, rank)
        require_array(f"{name}.down", self.down, (rank, hidden))
        require_array(f"{name}.down_bias", self.down_bias, (rank,))
        require_array(f"{name}.up", self.up, (hidden, rank))
        require_array(f"{name}.up_bias", self.up_bias, (hidden,))


@dataclass(frozen=True, slots=True, eq=False)
class Estimator:
    """The weights of a `hmi.models.layers.estimator.RowEstimator`, for the rows of a domain's delta.

    Attributes:
        inner: [size, 3 * hidden]
        inner_bias: [size]
        outer: [hidden, size]
        outer_bias: [hidden]
        linear: [hidden, 3 * hidden]
        error: [1]
    """

    inner: Array
    inner_bias: Array
    outer: Array
    outer_bias: Array
    linear: Array
    error: Array

    @property
    def size(self) -> int:
        return int(self.inner.shape[0])

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays().values())

    def arrays(self) -> dict[str, Array]:
        """By their names in the file, without what they are part of."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def check(self, hidden: int) -> None:
        """Raises `AdapterRefused` unless all fit rows of width `hidden`."""
        size = self.inner.shape[0] if self.inner.ndim == 2 else 0
        if not 1 <= size <= MAX_ESTIMATOR_SIZE:
            raise AdapterRefused(
                f"estimator.inner has shape {list(self.inner.shape)}, expected [1..{MAX_ESTIMATOR_SIZE}, {3 * hidden}]"
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


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A classification head: pooling, transform, then logits = x out^T + out_bias; of every token where there is no
    pooling.

    Attributes:
        activation: Of the head's own dense. A copy of the pooler always uses tanh.
        dense: [hidden, hidden], `dense_bias`: [hidden]; both or neither.
        out: [labels, hidden], `out_bias`: [labels].
        multi_label: Each label is a question of its own (sigmoid) instead of one choice among all (softmax).
    """

    pooling: Pooling
    transform: Transform
    activation: Activation
    dense: Array | None
    dense_bias: Array | None
    out: Array
    out_bias: Array
    labels: tuple[str, ...]
    multi_label: bool

    @classmethod
    def linear(
        cls, pooling: Pooling, out: Array, out_bias: Array, labels: tuple[str, ...], *, multi_label: bool = False
    ) -> Head:
        """One with nothing between pooling and the output layer."""
        return cls(pooling, Transform.NONE, Activation.IDENTITY, None, None, out, out_bias, labels, multi_label)

    @property
    def nbytes(self) -> int:
        dense = self.dense.nbytes if self.dense is not None else 0
        dense_bias = self.dense_bias.nbytes if self.dense_bias is not None else 0
        return dense + dense_bias + self.out.nbytes + self.out_bias.nbytes

    @property
    def uses_base_pooler(self) -> bool:
        if self.transform is Transform.POOLER_DENSE:
            return True
        return self.transform is Transform.POOLER and self.dense is None

    @property
    def dense_activation(self) -> Activation:
        return Activation.TANH if self.transform is Transform.POOLER else self.activation

    def check(self, hidden: int) -> None:
        """Raises `AdapterRefused` unless tensors, labels and transform agree with each other and with `hidden`."""
        count = len(self.labels)
        if count < (1 if self.multi_label else 2):
            raise AdapterRefused(f"the head has {count} labels; a single output (regression) is not supported")
        if count > MAX_LABELS:
            raise AdapterRefused(f"the head has {count} labels; at most {MAX_LABELS} are allowed")
        if len(set(self.labels)) != count or not all(self.labels):
            raise AdapterRefused("the head's label names are not distinct and non-empty")
        for label in self.labels:
            if fault := label_fault(label):
                raise AdapterRefused(f"label {label[:80]!r} {fault}")
        if (self.dense is None) != (self.dense_bias is None):
            raise AdapterRefused("head.dense and head.dense_bias must come together")
        if self.transform in (Transform.DENSE, Transform.POOLER_DENSE) and self.dense is None:
            raise AdapterRefused(f"head.dense is missing for transform {self.transform.value}")
        if self.transform is Transform.NONE and self.dense is not None:
            raise AdapterRefused("head.dense is there, but the transform is none")
        if self.pooling is Pooling.TOKENS:
            self._check_token_head()
        has_pooler = self.transform in (Transform.POOLER, Transform.POOLER_DENSE)
        if has_pooler and self.pooling in (Pooling.MEAN, Pooling.LAST):
            raise AdapterRefused(f"a pooler reads the first token's state; it does not go with {self.pooling} pooling")
        if self.dense is not None and self.dense_bias is not None:
            require_array("head.dense", self.dense, (hidden, hidden))
            require_array("head.dense_bias", self.dense_bias, (hidden,))
        require_array("head.out", self.out, (count, hidden))
        require_array("head.out_bias", self.out_bias, (count,))

    def _check_token_head(self) -> None:
        if self.transform is not Transform.NONE:
            raise AdapterRefused(f"a head for tokens with transform {self.transform.value} is not understood")
        if self.multi_label:
            raise AdapterRefused("a head for tokens gives each of them one label; multi-label is not understood")
        if len(self.labels) > MAX_TOKEN_LABELS:
            raise AdapterRefused(
                f"a head for tokens has {len(self.labels)} labels; at most {MAX_TOKEN_LABELS} are allowed"
            )


def label_fault(label: str) -> str | None:
    """Why no answer could carry a label of this name; None where it can."""
    if len(label) > _MAX_LABEL_CHARACTERS:
        return f"is longer than {_MAX_LABEL_CHARACTERS} characters"
    if any(character < " " or "\ud800" <= character <= "\udfff" for character in label):
        return "holds control characters"  # line breaks, terminals' escapes, halves of surrogate pairs
    return None
