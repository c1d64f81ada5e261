"""Classification heads: how a sequence is pooled, transformed and turned into logits of named labels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hmi.adapters.weights import Activation, Array, Weights, require_array
from hmi.errors import AdapterRefused

# A batch pads its rows to the largest head.
MAX_LABELS = 4096
MAX_TOKEN_LABELS = 1024  # every token of a batch has this many logits
_MAX_LABEL_CHARACTERS = 256  # every answer repeats a label


class Pooling(StrEnum):
    """How a sequence becomes one vector."""

    CLS = "cls"  # the first token's state; not in a decoder, where it sees no other token
    LAST = "last"  # the last token's state
    MEAN = "mean"
    TOKENS = "tokens"  # no pooling: the head answers for every token


class Transform(StrEnum):
    """What happens between pooling and the output layer."""

    NONE = "none"
    POOLER = "pooler"  # dense + tanh: the base model's own, or the adapter's copy where the head has a `dense`
    DENSE = "dense"  # the head's own dense and activation
    POOLER_DENSE = "pooler_dense"  # the base model's pooler, then the head's own dense and activation


@dataclass(frozen=True, slots=True, eq=False)
class Head(Weights):
    """A classification head: pooling, transform, then logits = x out^T + out_bias, for the sequence or each token."""

    pooling: Pooling
    transform: Transform
    activation: Activation  # Of the head's own dense. A copy of the pooler always uses tanh.
    dense: Array | None  # [hidden, hidden]
    dense_bias: Array | None  # [hidden]; present where `dense` is
    out: Array  # [labels, hidden]
    out_bias: Array  # [labels]
    labels: tuple[str, ...]
    multi_label: bool  # True: an independent sigmoid for each label. False: one softmax over all labels.

    @classmethod
    def linear(
        cls, pooling: Pooling, out: Array, out_bias: Array, labels: tuple[str, ...], *, multi_label: bool = False
    ) -> Head:
        """Return a head with nothing between pooling and the output layer."""
        return cls(pooling, Transform.NONE, Activation.IDENTITY, None, None, out, out_bias, labels, multi_label)

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
        shapes = {"dense": (hidden, hidden), "dense_bias": (hidden,), "out": (count, hidden), "out_bias": (count,)}
        for name, array in self.arrays().items():
            require_array(f"head.{name}", array, shapes[name])

    def _check_token_head(self) -> None:
        if self.transform is not Transform.NONE:
            raise AdapterRefused(f"a head for tokens with transform {self.transform.value} is not supported")
        if self.multi_label:
            raise AdapterRefused("a head for tokens gives each token one label; multi-label is not supported")
        if len(self.labels) > MAX_TOKEN_LABELS:
            raise AdapterRefused(
                f"a head for tokens has {len(self.labels)} labels; at most {MAX_TOKEN_LABELS} are allowed"
            )


def label_fault(label: str) -> str | None:
    """Return why an answer cannot carry this label; None where it can."""
    if len(label) > _MAX_LABEL_CHARACTERS:
        return f"is longer than {_MAX_LABEL_CHARACTERS} characters"
    if any(character < " " or "\ud800" <= character <= "\udfff" for character in label):
        return "holds control characters"  # line breaks, terminal escapes, halves of surrogate pairs
    return None
