"""Adapters saved by AdapterHub's `adapters` library: sequential bottlenecks on BERT, with a classification head.

Methods: Pfeiffer et al., "AdapterFusion" (arXiv 2005.00247), whose adapter reads the normalised sum of state and
residual; Houlsby et al., "Parameter-Efficient Transfer Learning for NLP" (arXiv 1902.00751), whose adapter reads the
state itself.

A flexible head is [dropout, dense, activation, dropout, linear], or [dropout, linear] with one layer, on the first
token's state or on the base model's pooler; its linear layers are numbered by their index in that list. A static head
is the classifier of `BertForSequenceClassification`.
"""

from __future__ import annotations

import numpy as np

from hmi.adapters import Activation, Adapter, AdapterKind, Array, Bottleneck, Head, Pooling, Transform
from hmi.adapters.formats.config import ConfigReader
from hmi.adapters.formats.folder import AdapterFolder
from hmi.adapters.formats.tensors import TensorReader, scale
from hmi.adapters.head import MAX_LABELS
from hmi.adapters.weights import MAX_RANK
from hmi.errors import AdapterRefused
from hmi.spec import HPLMSpec, Placement

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter.safetensors"
HEAD_CONFIG_FILE = "head_config.json"
HEAD_WEIGHTS_FILE = "model_head.safetensors"
_ACTIVATIONS = {
    "relu": Activation.RELU,
    "gelu": Activation.GELU,
    "swish": Activation.SWISH,
    "silu": Activation.SWISH,
    "tanh": Activation.TANH,
}
_MODULES = {Placement.ATTENTION: "attention.output", Placement.OUTPUT: "output"}
# Settings with a single supported value, which is also their default.
_FIXED_SETTINGS = (
    ("architecture", "", "only bottleneck adapters are understood"),
    ("original_ln_after", True, "the model's LayerNorm must follow the adapter"),
    ("ln_before", False, "a LayerNorm of the adapter's own is not understood"),
    ("ln_after", False, "a LayerNorm of the adapter's own is not understood"),
    ("is_parallel", False, "parallel adapters are not understood"),
    ("use_gating", False, "gating is not understood"),
    ("phm_layer", False, "hypercomplex layers (Compacter) are not understood"),
    ("cross_adapter", False, "cross attention is not understood"),
    ("inv_adapter", "", "invertible adapters are not understood"),
)
# Settings that shape training only, or parts that are checked to be off.
_WITHOUT_EFFECT = (
    "adapter_residual_before_ln", "dropout", "factorized_phm_W", "factorized_phm_rule", "hypercomplex_nonlinearity",
    "init_weights", "init_weights_seed", "inv_adapter_reduction_factor", "learn_phm", "phm_bias", "phm_c_init",
    "phm_dim", "phm_init_range", "phm_rank", "shared_W_phm", "shared_phm_rule", "stochastic_depth",
)  # fmt: skip
# By use of the base model's pooler and number of layers.
_TRANSFORMS = {
    (False, 1): Transform.NONE,
    (False, 2): Transform.DENSE,
    (True, 1): Transform.POOLER,
    (True, 2): Transform.POOLER_DENSE,
}


def read_adapterhub(folder: AdapterFolder, spec: HPLMSpec) -> Adapter:
    """Read an adapter, its scaling multiplied in. Raises `AdapterRefused` for anything not understood."""
    outer = folder.config(CONFIG_FILE)
    _check_model(outer, spec)
    name = outer.take_text("name")
    is_legacy = outer.is_null("version")
    config = outer.take_section("config")
    outer.ignore("model_class", "model_name", "version")
    outer.finish()
    for field, value, reason in _FIXED_SETTINGS:
        config.require(field, (value,), default=value, reason=reason)
    before_norm = _read_order(config)
    activation = _read_activation(config, is_legacy=is_legacy)
    scaling = _read_scaling(config)
    ranks = _read_ranks(config, spec)
    places = [
        place
        for place, field in ((Placement.ATTENTION, "mh_adapter"), (Placement.OUTPUT, "output_adapter"))
        if config.take_boolean(field)
    ]
    config.ignore(*_WITHOUT_EFFECT)
    config.finish()

    tensors = folder.tensors(WEIGHTS_FILE)
    prefix = "bert." if any(each.startswith("bert.") for each in tensors.remaining) else ""
    bottleneck = {
        (layer, place): _read_bottleneck(
            tensors, f"{prefix}encoder.layer.{layer}.{_MODULES[place]}.adapters.{name}", rank, spec.hidden_size, scaling
        )
        for layer, rank in ranks.items()
        for place in places
    }
    tensors.finish()
    if not bottleneck:
        raise AdapterRefused(f"{CONFIG_FILE}: by its configuration the adapter has no part in any layer")
    head = _read_head(folder, spec) if {HEAD_CONFIG_FILE, HEAD_WEIGHTS_FILE} & folder.names else None
    return Adapter(AdapterKind.BOTTLENECK, {}, bottleneck, before_norm, activation, head)


def _check_model(config: ConfigReader, spec: HPLMSpec) -> None:
    config.require("model_type", ("bert",), default="bert", reason="the base model is a BERT")
    size = spec.hidden_size
    config.require("hidden_size", (size,), default=size, reason=f"the base model's hidden size is {size}")


def _read_order(config: ConfigReader) -> bool:
    """Return whether the adapter reads LN(h + residual)."""
    before_norm = config.take_boolean("original_ln_before", default=False)
    # Without a LayerNorm before the adapter, its residual is the same in both cases.
    allowed = (True,) if before_norm else (True, False)
    reason = "the adapter's residual must be the state before the LayerNorm"
    config.require("residual_before_ln", allowed, default=True, reason=reason)
    return before_norm


def _read_activation(config: ConfigReader, *, is_legacy: bool) -> Activation:
    name = config.take_text("non_linearity").lower()
    # In files without a version "gelu" is the tanh approximation.
    if name not in _ACTIVATIONS or (is_legacy and name == "gelu"):
        raise config.refusal("non_linearity", name, f"{', '.join(sorted(_ACTIVATIONS))} are understood")
    return _ACTIVATIONS[name]


def _read_scaling(config: ConfigReader) -> float:
    value = config.take("scaling", 1.0)
    if isinstance(value, str):
        raise config.refusal("scaling", value, "a fixed number is understood, a learned scaling is not")
    return config.positive("scaling", value)


def _read_ranks(config: ConfigReader, spec: HPLMSpec) -> dict[int, int]:
    """Return the bottleneck's width in each layer that has one."""
    left_out = config.take("leave_out", [])
    if not isinstance(left_out, list) or not all(type(layer) is int for layer in left_out):
        raise config.refusal("leave_out", left_out, "it must be a list of layer numbers")
    factor = config.take("reduction_factor")
    ranks = {}
    for layer in sorted(set(range(spec.layers)) - set(left_out)):
        own = factor.get(str(layer), factor.get("default")) if isinstance(factor, dict) else factor
        divisor = config.positive("reduction_factor", own)
        if spec.hidden_size / divisor > MAX_RANK:  # as a float: a tiny factor gives infinity
            raise config.refusal("reduction_factor", own, f"the rank may be at most {MAX_RANK}")
        ranks[layer] = max(1, int(spec.hidden_size // divisor))
    return ranks


def _read_bottleneck(tensors: TensorReader, module: str, rank: int, hidden: int, scaling: float) -> Bottleneck:
    return Bottleneck(
        down=tensors.take(f"{module}.adapter_down.0.weight", (rank, hidden)),
        down_bias=tensors.take(f"{module}.adapter_down.0.bias", (rank,)),
        up=scale(tensors.take(f"{module}.adapter_up.weight", (hidden, rank)), scaling),
        up_bias=scale(tensors.take(f"{module}.adapter_up.bias", (hidden,)), scaling),
    )


def _read_head(folder: AdapterFolder, spec: HPLMSpec) -> Head:
    outer = folder.config(HEAD_CONFIG_FILE)
    _check_model(outer, spec)
    tensors = folder.tensors(HEAD_WEIGHTS_FILE)
    outer.ignore("model_name", "version")
    if outer.is_null("config"):
        return _read_static_head(outer, tensors, spec.hidden_size)
    name = outer.take_text("name")
    config = outer.take_section("config")
    outer.ignore("model_class", "num_labels", "label2id")
    outer.finish()
    return _read_flexible_head(config, tensors, name, spec.hidden_size)


def _read_static_head(outer: ConfigReader, tensors: TensorReader, hidden: int) -> Head:
    outer.require(
        "model_class",
        ("BertForSequenceClassification",),
        default=None,
        reason="a head without a configuration of its own is understood for BertForSequenceClassification only",
    )
    labels = _read_labels(outer)
    outer.ignore("name", "config")
    outer.finish()
    out, out_bias = _read_linear(tensors, "classifier", len(labels), hidden)
    tensors.finish()
    return Head(Pooling.CLS, Transform.POOLER, Activation.TANH, None, None, out, out_bias, labels, multi_label=False)


def _read_flexible_head(config: ConfigReader, tensors: TensorReader, name: str, hidden: int) -> Head:
    kinds = ("classification", "multilabel_classification")
    kind = config.require("head_type", kinds, default=None, reason="classification heads are understood")
    layers = config.require("layers", (1, 2), default=None, reason="heads of one or two layers are understood")
    is_pooled = config.take_boolean("use_pooler", default=False)
    is_biased = config.take_boolean("bias", default=True)
    activation = _read_head_activation(config)
    labels = _read_labels(config)
    config.ignore("dropout_prob")
    config.finish()

    dense = dense_bias = None
    last = 1
    if layers == 2:
        dense, dense_bias = _read_linear(tensors, f"heads.{name}.1", hidden, hidden)
        last = 3 if activation is Activation.IDENTITY else 4
    out, out_bias = _read_linear(tensors, f"heads.{name}.{last}", len(labels), hidden, is_biased=is_biased)
    tensors.finish()
    return Head(
        pooling=Pooling.CLS,
        transform=_TRANSFORMS[is_pooled, layers],
        activation=activation,
        dense=dense,
        dense_bias=dense_bias,
        out=out,
        out_bias=out_bias,
        labels=labels,
        multi_label=kind == "multilabel_classification",
    )


def _read_linear(
    tensors: TensorReader, name: str, outputs: int, inputs: int, *, is_biased: bool = True
) -> tuple[Array, Array]:
    weight = tensors.take(f"{name}.weight", (outputs, inputs))
    return weight, tensors.take(f"{name}.bias", (outputs,)) if is_biased else np.zeros(outputs, np.float32)


def _read_head_activation(config: ConfigReader) -> Activation:
    name = config.take("activation_function")
    if name is None:
        return Activation.IDENTITY
    if not isinstance(name, str) or name.lower() not in _ACTIVATIONS:
        raise config.refusal("activation_function", name, f"{', '.join(sorted(_ACTIVATIONS))} are understood")
    return _ACTIVATIONS[name.lower()]


def _read_labels(config: ConfigReader) -> tuple[str, ...]:
    """Return the labels in the order of the outputs: the names in `label2id`, else LABEL_0 and so on."""
    count = config.take("num_labels")
    if type(count) is not int or not 1 <= count <= MAX_LABELS:
        raise config.refusal("num_labels", count, f"it must be a number from 1 to {MAX_LABELS}")
    numbers = config.take_object("label2id")
    if not numbers:
        return tuple(f"LABEL_{number}" for number in range(count))
    if not all(type(number) is int for number in numbers.values()) or sorted(numbers.values()) != list(range(count)):
        raise config.refusal("label2id", numbers, f"it must give each of the {count} outputs one name")
    return tuple(sorted(numbers, key=numbers.__getitem__))
