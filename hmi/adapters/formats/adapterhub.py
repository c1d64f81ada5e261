"""Adapters saved by AdapterHub's `adapters` library: sequential bottlenecks on BERT, with a classification head.

Methods: Pfeiffer et al., "AdapterFusion" (arXiv 2005.00247), whose adapter reads the normalised sum of
state and residual; Houlsby et al., "Parameter-Efficient Transfer Learning for NLP" (arXiv 1902.00751),
whose adapter reads the state itself.
"""

from __future__ import annotations

from hmi.adapters import Activation, Adapter, AdapterKind, Bottleneck, Head
from hmi.adapters.formats.adapterhub_head import HEAD_CONFIG_FILE, HEAD_WEIGHTS_FILE, read_head
from hmi.adapters.formats.config import ConfigClaims
from hmi.adapters.formats.folder import AdapterFolder
from hmi.adapters.formats.tensors import TensorClaims, scale
from hmi.adapters.weights import MAX_RANK
from hmi.errors import AdapterRefused
from hmi.spec import HPLMSpec, Placement

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "read_adapterhub"]

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter.safetensors"
_ACTIVATIONS = {
    "relu": Activation.RELU,
    "gelu": Activation.GELU,
    "swish": Activation.SWISH,
    "silu": Activation.SWISH,
    "tanh": Activation.TANH,
}
_MODULES = {Placement.ATTENTION: "attention.output", Placement.OUTPUT: "output"}
# They shape training only, or parts whose switch is checked to be off.
_WITHOUT_EFFECT = (
    "adapter_residual_before_ln", "dropout", "factorized_phm_W", "factorized_phm_rule", "hypercomplex_nonlinearity",
    "init_weights", "init_weights_seed", "inv_adapter_reduction_factor", "learn_phm", "phm_bias", "phm_c_init",
    "phm_dim", "phm_init_range", "phm_rank", "shared_W_phm", "shared_phm_rule", "stochastic_depth",
)  # fmt: skip


def read_adapterhub(folder: AdapterFolder, spec: HPLMSpec) -> Adapter:
    """The adapter, its scaling multiplied in. Raises `AdapterRefused` for anything not understood."""
    outer = folder.config(CONFIG_FILE)
    check_model(outer, spec)
    name = outer.take_text("name")
    legacy = outer.is_null("version")
    config = outer.take_object_claims("config")
    outer.ignore("model_class", "model_name", "version")
    outer.finish()
    _check_sequential(config)
    before_norm = _read_order(config)
    activation = _read_activation(config, legacy=legacy)
    scaling = _read_scaling(config)
    ranks = _read_ranks(config, spec)
    places = [
        place
        for place, field in ((Placement.ATTENTION, "mh_adapter"), (Placement.OUTPUT, "output_adapter"))
        if config.require(field, (True, False), default=None, reason="it must be true or false")
    ]
    config.ignore(*_WITHOUT_EFFECT)
    config.finish()

    tensors = folder.tensors(WEIGHTS_FILE)
    prefix = "bert." if any(each.startswith("bert.") for each in tensors.unclaimed) else ""
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
    return Adapter(AdapterKind.BOTTLENECK, {}, bottleneck, before_norm, activation, _find_head(folder, spec))


def _find_head(folder: AdapterFolder, spec: HPLMSpec) -> Head | None:
    if HEAD_CONFIG_FILE not in folder.names and HEAD_WEIGHTS_FILE not in folder.names:
        return None
    config = folder.config(HEAD_CONFIG_FILE)
    check_model(config, spec)
    return read_head(config, folder.tensors(HEAD_WEIGHTS_FILE), spec)


def check_model(config: ConfigClaims, spec: HPLMSpec) -> None:
    """Raises `AdapterRefused` where the file says that it was made for another kind or width of model."""
    config.require("model_type", ("bert",), default="bert", reason="the base model is a BERT")
    size = spec.hidden_size
    config.require("hidden_size", (size,), default=size, reason=f"the base model's hidden size is {size}")


def _check_sequential(config: ConfigClaims) -> None:
    config.require("architecture", ("",), default="", reason="only bottleneck adapters are understood")
    config.require("original_ln_after", (True,), default=True, reason="the model's LayerNorm must follow the adapter")
    config.require("ln_before", (False,), default=False, reason="a LayerNorm of the adapter's own is not understood")
    config.require("ln_after", (False,), default=False, reason="a LayerNorm of the adapter's own is not understood")
    config.require("is_parallel", (False,), default=False, reason="parallel adapters are not understood")
    config.require("use_gating", (False,), default=False, reason="gating is not understood")
    config.require("phm_layer", (False,), default=False, reason="hypercomplex layers (Compacter) are not understood")
    config.require("cross_adapter", (False,), default=False, reason="cross attention is not understood")
    config.require("inv_adapter", ("",), default="", reason="invertible adapters are not understood")


def _read_order(config: ConfigClaims) -> bool:
    """Whether the adapter reads LN(h + residual), by the two flags that decide it."""
    before_norm = config.require("original_ln_before", (True, False), default=False, reason="it must be true or false")
    # Without a LayerNorm before the adapter there is one candidate only for its residual.
    allowed = (True,) if before_norm else (True, False)
    reason = "the adapter's residual must be the state before the LayerNorm"
    config.require("residual_before_ln", allowed, default=True, reason=reason)
    return bool(before_norm)


def _read_activation(config: ConfigClaims, *, legacy: bool) -> Activation:
    name = config.take_text("non_linearity").lower()
    # Files without a version come from a time when "gelu" meant the tanh approximation.
    if name not in _ACTIVATIONS or (legacy and name == "gelu"):
        raise config.refusal("non_linearity", name, f"{', '.join(sorted(_ACTIVATIONS))} are understood")
    return _ACTIVATIONS[name]


def _read_scaling(config: ConfigClaims) -> float:
    value = config.take("scaling", 1.0)
    if isinstance(value, str):
        raise config.refusal("scaling", value, "a fixed number is understood, a learned scaling is not")
    return config.positive("scaling", value)


def _read_ranks(config: ConfigClaims, spec: HPLMSpec) -> dict[int, int]:
    """The bottleneck's width in each layer that has one."""
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


def _read_bottleneck(tensors: TensorClaims, module: str, rank: int, hidden: int, scaling: float) -> Bottleneck:
    return Bottleneck(
        down=tensors.take(f"{module}.adapter_down.0.weight", (rank, hidden)),
        down_bias=tensors.take(f"{module}.adapter_down.0.bias", (rank,)),
        up=scale(tensors.take(f"{module}.adapter_up.weight", (hidden, rank)), scaling),
        up_bias=scale(tensors.take(f"{module}.adapter_up.bias", (hidden,)), scaling),
    )
