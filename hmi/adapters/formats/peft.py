"""Adapters saved by PEFT: LoRA on BERT, without a head or with the classifier of `BertForSequenceClassification` or
`BertForTokenClassification`; LoRA on GPT-2 and Llama as language models, or with the head of
`...ForSequenceClassification`.

Method: Hu et al., "LoRA" (arXiv 2106.09685); scaling alpha / rank, or alpha / sqrt(rank) with rsLoRA
(Kalajdzievski, arXiv 2312.03732).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from hmi.adapters import Activation, Adapter, AdapterKind, Array, Head, Lora, Pooling, Transform
from hmi.adapters.formats.config import ConfigReader
from hmi.adapters.formats.folder import AdapterFolder
from hmi.adapters.formats.modules import LAYERS_PATTERNS, PREFIXES, ModulePattern, linear_modules
from hmi.adapters.formats.tensors import TensorReader, scale
from hmi.errors import AdapterRefused
from hmi.spec import Family, HPLMSpec, Site

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_ROOT = "base_model.model."
# Settings that shape training only, or name the origin of the base model.
_WITHOUT_EFFECT = (
    "base_model_name_or_path", "ensure_weight_tying", "eva_config", "inference_mode", "lora_dropout", "megatron_core",
    "peft_version", "qalora_group_size", "revision",
)  # fmt: skip
# PEFT always lists both: BERT calls its head "classifier", decoders theirs "score".
_HEAD_MODULES = {"classifier", "score"}
_CLASSIFIERS = ("BertForSequenceClassification", "BertForTokenClassification")


def read_peft(folder: AdapterFolder, spec: HPLMSpec) -> Adapter:
    """Read an adapter, its scaling multiplied in. Raises `AdapterRefused` for anything not understood."""
    config = folder.config(CONFIG_FILE)
    tensors = folder.tensors(WEIGHTS_FILE)
    prefix = PREFIXES[spec.family]
    prefix = prefix if any(name.startswith(_ROOT + prefix) for name in tensors.remaining) else ""
    _check_plain_lora(config, spec)
    selected = _Selection.read(config, spec)
    scaling = _Scaling.read(config)
    form = _read_decoder_head_form(config) if spec.family.decodes else _read_encoder_head_form(config)
    config.finish()

    lora: dict[tuple[int, Site], Lora] = {}
    for layer, sites, module in linear_modules(spec, prefix):
        if selected.holds(module, layer):
            shapes = [spec.site_shape(site) for site in sites]
            pair = _read_pair(tensors, module, (shapes[0][0], sum(outputs for _, outputs in shapes)), scaling)
            ends = np.cumsum([outputs for _, outputs in shapes])[:-1]
            # The sites of a fused layer share its input, and each has a part of its output.
            lora |= {(layer, site): Lora(pair.a, b) for site, b in zip(sites, np.split(pair.b, ends), strict=True)}
    if not spec.family.decodes:
        _accept_idle_pooler(tensors, prefix, spec.hidden_size)
    head = None
    if form is not None:
        hidden = spec.hidden_size
        head = (
            _read_decoder_head(tensors, hidden)
            if spec.family.decodes
            else _read_encoder_head(tensors, prefix, hidden, form)
        )
    tensors.finish()
    if not lora:
        raise AdapterRefused(
            f"{CONFIG_FILE}: target_modules select no linear layer of the model's {spec.layers} layers"
        )
    return Adapter(AdapterKind.LORA, lora, {}, True, Activation.IDENTITY, head)


def _check_plain_lora(config: ConfigReader, spec: HPLMSpec) -> None:
    config.require("peft_type", ("LORA",), default=None, reason="only LoRA is understood")
    config.require("bias", ("none",), default="none", reason="trained biases of the base model are not understood")
    config.require("use_dora", (False,), default=False, reason="DoRA is not understood")
    # GPT-2's weights are [in, out]; its LoRA pairs are not transposed.
    transposed = (True, False) if spec.family is Family.GPT2 else (False,)
    config.require("fan_in_fan_out", transposed, default=False, reason="transposed weights are not understood")
    config.require(
        "init_lora_weights",
        (True, False, "gaussian", "orthogonal", "eva"),
        default=True,
        reason="this initialisation changes the base model's weights, and the shared base model was not changed",
    )
    config.ignore(*_WITHOUT_EFFECT)


@dataclass(frozen=True, slots=True)
class _Selection:
    """The modules that carry a LoRA, as PEFT selects them."""

    selects: Callable[[str], bool]
    excludes: Callable[[str], bool]
    layers: frozenset[int] | None

    @classmethod
    def read(cls, config: ConfigReader, spec: HPLMSpec) -> _Selection:
        targets = config.take("target_modules")
        if not targets:
            raise AdapterRefused(f"{config.place}: target_modules is missing")
        layers, names = config.take("layers_to_transform"), LAYERS_PATTERNS[spec.family]
        config.require(
            "layers_pattern",
            (*names, [names[0]], []),
            default=[],
            reason=f"a {spec.family}'s layers are called {names[0]!r}",
        )
        if layers is not None and layers != []:
            layers = layers if isinstance(layers, list) else [layers]
            if isinstance(targets, str) or not all(type(layer) is int for layer in layers):
                reason = "it must be layer numbers, with target_modules as a list"
                raise config.refusal("layers_to_transform", layers, reason)
        else:
            layers = None
        return cls(
            _matcher(config, "target_modules", targets),
            _matcher(config, "exclude_modules", config.take("exclude_modules", [])),
            frozenset(layers) if layers is not None else None,
        )

    def holds(self, module: str, layer: int) -> bool:
        if self.layers is not None and layer not in self.layers:
            return False
        return self.selects(module) and not self.excludes(module)


def _matcher(config: ConfigReader, field: str, value: Any) -> Callable[[str], bool]:
    """Match a list of name endings, or a pattern for the whole name."""
    if isinstance(value, str):
        return ModulePattern(config, field, value).selects
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise config.refusal(field, value, "it must be a list of module names, or a pattern")
    endings = tuple(value)
    return lambda module: any(module == each or module.endswith(f".{each}") for each in endings)


@dataclass(frozen=True, slots=True)
class _Scaling:
    """Rank and scaling of each module: the first pattern that fits its name, else the general value."""

    rank: float
    alpha: float
    ranks: tuple[tuple[ModulePattern, float], ...]
    alphas: tuple[tuple[ModulePattern, float], ...]
    by_root: bool

    @classmethod
    def read(cls, config: ConfigReader) -> _Scaling:
        def patterns(field: str) -> tuple[tuple[ModulePattern, float], ...]:
            entries = config.take_object(field)
            values = [config.positive(f"{field}.{key}", value) for key, value in entries.items()]
            return tuple(zip(ModulePattern.of_keys(config, field, entries), values, strict=True))

        by_root = config.take_boolean("use_rslora", default=False)
        ranks, alphas = patterns("rank_pattern"), patterns("alpha_pattern")
        return cls(config.take_number("r"), config.take_number("lora_alpha"), ranks, alphas, by_root)

    def of(self, module: str) -> tuple[float, float]:
        """Return rank and scaling factor of a module."""
        rank = next((value for pattern, value in self.ranks if pattern.ends(module)), self.rank)
        alpha = next((value for pattern, value in self.alphas if pattern.ends(module)), self.alpha)
        return rank, alpha / (math.sqrt(rank) if self.by_root else rank)


def _read_pair(tensors: TensorReader, module: str, shape: tuple[int, int], scaling: _Scaling) -> Lora:
    inputs, outputs = shape
    rank, factor = scaling.of(module)
    a = tensors.take(f"{_ROOT}{module}.lora_A.weight", (None, inputs))
    if a.shape[0] != rank:
        raise AdapterRefused(f"{tensors.file}: {module} has rank {a.shape[0]}, but {CONFIG_FILE} says {rank:g}")
    b = tensors.take(f"{_ROOT}{module}.lora_B.weight", (outputs, a.shape[0]))
    return Lora(a, scale(b, factor))


def _accept_idle_pooler(tensors: TensorReader, prefix: str, hidden: int) -> None:
    """Accept a LoRA on the pooler whose `lora_B` is zero, which `all-linear` gives if the loss reads no pooler."""
    name = f"{_ROOT}{prefix}pooler.dense.lora_"
    if f"{name}A.weight" not in tensors.remaining:
        return
    a = tensors.take(f"{name}A.weight", (None, hidden))
    b = tensors.take(f"{name}B.weight", (hidden, a.shape[0]))
    if b.any():
        raise AdapterRefused(
            f"{tensors.file}: {name}B.weight: a LoRA on the pooler is not understood; "
            'train without it (exclude_modules=["pooler.dense"]) or with the whole pooler (modules_to_save=["pooler"])'
        )


class _HeadForm(Enum):
    SEQUENCES = "classifier of sequences"
    SEQUENCES_WITH_POOLER = "classifier of sequences, with a pooler of the adapter's own"
    TOKENS = "classifier of tokens"


def _read_decoder_head_form(config: ConfigReader) -> _HeadForm | None:
    """Return None for a language model, which uses the base model's head."""
    reason = "adapters of language models and of classifiers of sequences are understood, and those without a task"
    tasks = ("CAUSAL_LM", "SEQ_CLS", "FEATURE_EXTRACTION", "")
    task = config.require("task_type", tasks, default="", reason=reason)
    config.take_object("auto_mapping")
    saved = set(config.take_names("modules_to_save"))
    if task == "SEQ_CLS" and saved <= _HEAD_MODULES:
        return _HeadForm.SEQUENCES
    if saved:
        raise config.refusal(
            "modules_to_save", sorted(saved), "of a decoder only a classifier's head may be saved whole"
        )
    return None


def _read_encoder_head_form(config: ConfigReader) -> _HeadForm | None:
    """Return None for embeddings."""
    task = config.require(
        "task_type",
        ("SEQ_CLS", "TOKEN_CLS", "FEATURE_EXTRACTION", ""),
        default="",
        reason="classification of sequences and of tokens, and feature extraction, are understood",
    )
    saved = frozenset(config.take_names("modules_to_save"))
    auto_mapping = config.take_object("auto_mapping")
    if unknown := saved - _HEAD_MODULES - {"pooler"}:
        reason = "only the classifier and the pooler may be saved whole"
        raise config.refusal("modules_to_save", sorted(unknown), reason)
    if task == "FEATURE_EXTRACTION" and saved:
        raise config.refusal("modules_to_save", sorted(saved), "feature extraction has no head to apply them in")
    if task == "FEATURE_EXTRACTION" or not (task or saved):
        return None
    # A multiple-choice model has a classifier with weights of the same shapes.
    model_class = auto_mapping.get("base_model_class")
    if not task and model_class not in _CLASSIFIERS:
        reason = f"without a task_type, a head is understood for {' and '.join(_CLASSIFIERS)} only"
        raise config.refusal("auto_mapping", auto_mapping, reason)
    if task != "TOKEN_CLS" and (task or model_class != _CLASSIFIERS[1]):
        return _HeadForm.SEQUENCES_WITH_POOLER if "pooler" in saved else _HeadForm.SEQUENCES
    if "pooler" in saved:
        raise config.refusal("modules_to_save", sorted(saved), "a classifier of tokens reads no pooler")
    return _HeadForm.TOKENS


def _read_decoder_head(tensors: TensorReader, hidden: int) -> Head:
    """Read the head of `GPT2ForSequenceClassification` or `LlamaForSequenceClassification`, on the last token."""
    out = tensors.take(f"{_ROOT}score.weight", (None, hidden))
    return Head.linear(Pooling.LAST, out, np.zeros(len(out), np.float32), _numbered_labels(out))


def _read_encoder_head(tensors: TensorReader, prefix: str, hidden: int, form: _HeadForm) -> Head:
    out = tensors.take(f"{_ROOT}classifier.weight", (None, hidden))
    out_bias = tensors.take(f"{_ROOT}classifier.bias", (len(out),))
    labels = _numbered_labels(out)
    if form is _HeadForm.TOKENS:
        return Head.linear(Pooling.TOKENS, out, out_bias, labels)
    dense = dense_bias = None
    if form is _HeadForm.SEQUENCES_WITH_POOLER:
        dense = tensors.take(f"{_ROOT}{prefix}pooler.dense.weight", (hidden, hidden))
        dense_bias = tensors.take(f"{_ROOT}{prefix}pooler.dense.bias", (hidden,))
    return Head(
        Pooling.CLS, Transform.POOLER, Activation.TANH, dense, dense_bias, out, out_bias, labels, multi_label=False
    )


def _numbered_labels(out: Array) -> tuple[str, ...]:
    return tuple(f"LABEL_{number}" for number in range(len(out)))
