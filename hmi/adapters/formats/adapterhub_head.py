"""Classification heads saved by AdapterHub's `adapters` library.

A flexible head is [dropout, dense, activation, dropout, linear], or [dropout, linear] with one layer, on
the first token's state or on the base model's pooler; its linear layers are numbered by their place in
that list. A static head is the classifier of `BertForSequenceClassification`.
"""

from __future__ import annotations

import numpy as np

from hmi.adapters import Activation, Array, Head, Pooling, Transform
from hmi.adapters.formats.config import ConfigClaims
from hmi.adapters.formats.tensors import TensorClaims
from hmi.adapters.head import MAX_LABELS
from hmi.spec import HPLMSpec

__all__ = ["HEAD_CONFIG_FILE", "HEAD_WEIGHTS_FILE", "read_head"]

HEAD_CONFIG_FILE = "head_config.json"
HEAD_WEIGHTS_FILE = "model_head.safetensors"
_ACTIVATIONS = {
    "tanh": Activation.TANH,
    "relu": Activation.RELU,
    "gelu": Activation.GELU,
    "swish": Activation.SWISH,
    "silu": Activation.SWISH,
}
_TRANSFORMS = {
    (False, 1): Transform.NONE,
    (False, 2): Transform.DENSE,
    (True, 1): Transform.POOLER,
    (True, 2): Transform.POOLER_DENSE,
}


def read_head(outer: ConfigClaims, tensors: TensorClaims, spec: HPLMSpec) -> Head:
    """The head of a parsed `head_config.json`. Raises `AdapterRefused` for anything not understood."""
    outer.ignore("hidden_size", "model_name", "model_type", "version")
    if outer.is_null("config"):
        return _read_static(outer, tensors, spec.hidden_size)
    name = outer.take_text("name")
    config = outer.take_object_claims("config")
    outer.ignore("model_class", "num_labels", "label2id")
    outer.finish()
    return _read_flexible(config, tensors, name, spec.hidden_size)


def _read_static(outer: ConfigClaims, tensors: TensorClaims, hidden: int) -> Head:
    outer.require(
        "model_class",
        ("BertForSequenceClassification",),
        default=None,
        reason="a head without a configuration of its own is understood for BertForSequenceClassification only",
    )
    count = _read_count(outer)
    labels = _read_labels(outer, count)
    outer.ignore("name", "config")
    outer.finish()
    out, out_bias = _read_linear(tensors, "classifier", count, hidden)
    tensors.finish()
    return Head(Pooling.CLS, Transform.POOLER, Activation.TANH, None, None, out, out_bias, labels, multi_label=False)


def _read_flexible(config: ConfigClaims, tensors: TensorClaims, name: str, hidden: int) -> Head:
    kinds = ("classification", "multilabel_classification")
    kind = config.require("head_type", kinds, default=None, reason="classification heads are understood")
    layers = config.require("layers", (1, 2), default=None, reason="heads of one or two layers are understood")
    pooled = config.require("use_pooler", (True, False), default=False, reason="it must be true or false")
    biased = config.require("bias", (True, False), default=True, reason="it must be true or false")
    activation = _read_activation(config)
    count = _read_count(config)
    labels = _read_labels(config, count)
    config.ignore("dropout_prob")
    config.finish()

    dense = dense_bias = None
    last = 1
    if layers == 2:
        dense, dense_bias = _read_linear(tensors, f"heads.{name}.1", hidden, hidden)
        last = 3 if activation is Activation.IDENTITY else 4
    out, out_bias = _read_linear(tensors, f"heads.{name}.{last}", count, hidden, biased=biased)
    tensors.finish()
    return Head(
        pooling=Pooling.CLS,
        transform=_TRANSFORMS[pooled, layers],
        activation=activation,
        dense=dense,
        dense_bias=dense_bias,
        out=out,
        out_bias=out_bias,
        labels=labels,
        multi_label=kind == "multilabel_classification",
    )


def _read_linear(
    tensors: TensorClaims, name: str, outputs: int, inputs: int, *, biased: bool = True
) -> tuple[Array, Array]:
    weight = tensors.take(f"{name}.weight", (outputs, inputs))
    return weight, tensors.take(f"{name}.bias", (outputs,)) if biased else np.zeros(outputs, np.float32)


def _read_activation(config: ConfigClaims) -> Activation:
    """Of the dense layer; null is none."""
    name = config.take("activation_function")
    if name is None:
        return Activation.IDENTITY
    if not isinstance(name, str) or name.lower() not in _ACTIVATIONS:
        raise config.refusal("activation_function", name, f"{', '.join(sorted(_ACTIVATIONS))} are understood")
    return _ACTIVATIONS[name.lower()]


def _read_count(config: ConfigClaims) -> int:
    count = config.take("num_labels")
    if type(count) is not int or not 1 <= count <= MAX_LABELS:
        raise config.refusal("num_labels", count, f"it must be a number from 1 to {MAX_LABELS}")
    return count


def _read_labels(config: ConfigClaims, count: int) -> tuple[str, ...]:
    """Names in the order of the outputs: those of `label2id`, else LABEL_0 and so on."""
    numbers = config.take_object("label2id")
    if not numbers:
        return tuple(f"LABEL_{number}" for number in range(count))
    if not all(type(number) is int for number in numbers.values()) or sorted(numbers.values()) != list(range(count)):
        raise config.refusal("label2id", numbers, f"it must give each of the {count} outputs one name")
    return tuple(sorted(numbers, key=numbers.__getitem__))
