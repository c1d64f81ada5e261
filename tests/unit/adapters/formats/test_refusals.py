"""Malformed adapters, one way at a time: each is refused, and the reason names what and where.

A folder in each format is written by hand and accepted as it is; a case changes one thing of it.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from hmi.adapters.formats import read_adapter, save_adapter
from hmi.errors import AdapterRefused
from tests.adapter_samples import head, lora_adapter, sample_spec

SPEC = sample_spec(k=2)
HIDDEN = SPEC.hidden_size
QUERY = "base_model.model.bert.encoder.layer.2.attention.self.query"
OUTPUT = "bert.encoder.layer.2.output.adapters.news"


@dataclass
class Sample:
    """An adapter folder before it is written."""

    config: dict[str, Any]
    weights: dict[str, NDArray[Any]]
    head_config: dict[str, Any] | None = None
    head_weights: dict[str, NDArray[Any]] = field(default_factory=dict)
    raw: dict[str, bytes] = field(default_factory=dict)  # files that replace or join the others

    @property
    def inner(self) -> dict[str, Any]:
        """AdapterHub's own settings."""
        found: dict[str, Any] = self.config["config"]
        return found

    @property
    def head(self) -> dict[str, Any]:
        """AdapterHub's settings of the head."""
        if self.head_config is None:
            raise ValueError("no head")
        found: dict[str, Any] = self.head_config["config"]
        return found

    def write(self, folder: Path, weights_file: str) -> None:
        files = {"adapter_config.json": json.dumps(self.config).encode(), weights_file: save(self.weights)}
        if self.head_config is not None:
            files["head_config.json"] = json.dumps(self.head_config).encode()
            files["model_head.safetensors"] = save(self.head_weights)
        for name, content in (files | self.raw).items():
            (folder / name).write_bytes(content)


def _array(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).normal(0, 0.2, shape).astype(np.float32)


def peft_sample() -> Sample:
    weights = {"base_model.model.classifier.weight": _array(3, HIDDEN), "base_model.model.classifier.bias": _array(3)}
    for layer in (2, 3):
        for module in ("query", "value"):
            name = f"base_model.model.bert.encoder.layer.{layer}.attention.self.{module}"
            weights[f"{name}.lora_A.weight"] = _array(4, HIDDEN)
            weights[f"{name}.lora_B.weight"] = _array(HIDDEN, 4)
    config: dict[str, Any] = {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": "acme/bert", "bias": "none",
        "exclude_modules": None, "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True,
        "layer_replication": None, "layers_pattern": None, "layers_to_transform": [2, 3], "loftq_config": {},
        "lora_alpha": 8, "lora_bias": False, "lora_dropout": 0.1, "megatron_config": None,
        "megatron_core": "megatron.core", "modules_to_save": ["classifier", "score"], "peft_type": "LORA",
        "qalora_group_size": 16, "r": 4, "rank_pattern": {}, "revision": None, "target_modules": ["query", "value"],
        "task_type": "SEQ_CLS", "trainable_token_indices": None, "use_dora": False, "use_rslora": False,
    }  # fmt: skip
    return Sample(config, weights)


def adapterhub_sample() -> Sample:
    weights = {}
    for layer in (2, 3):
        name = f"bert.encoder.layer.{layer}.output.adapters.news"
        weights[f"{name}.adapter_down.0.weight"] = _array(8, HIDDEN)
        weights[f"{name}.adapter_down.0.bias"] = _array(8)
        weights[f"{name}.adapter_up.weight"] = _array(HIDDEN, 8)
        weights[f"{name}.adapter_up.bias"] = _array(HIDDEN)
    inner = {
        "adapter_residual_before_ln": False, "cross_adapter": False, "dropout": 0.0, "factorized_phm_W": True,
        "init_weights": "bert", "init_weights_seed": None, "inv_adapter": None, "inv_adapter_reduction_factor": None,
        "is_parallel": False, "learn_phm": True, "leave_out": [0, 1], "ln_after": False, "ln_before": False,
        "mh_adapter": False, "non_linearity": "relu", "original_ln_after": True, "original_ln_before": True,
        "output_adapter": True, "phm_bias": True, "phm_dim": 4, "phm_layer": False, "reduction_factor": 4,
        "residual_before_ln": True, "scaling": 1.0, "stochastic_depth": 0.0, "use_gating": False,
    }  # fmt: skip
    outer = {
        "hidden_size": HIDDEN, "model_class": "BertAdapterModel", "model_name": "acme/bert", "model_type": "bert",
        "name": "news", "version": "adapters.1.3.0",
    }  # fmt: skip
    head_inner = {
        "activation_function": "tanh", "bias": True, "dropout_prob": None, "head_type": "classification",
        "label2id": {"bad": 0, "fair": 1, "good": 2}, "layers": 2, "num_labels": 3, "use_pooler": False,
    }  # fmt: skip
    head_weights = {
        "heads.news.1.weight": _array(HIDDEN, HIDDEN),
        "heads.news.1.bias": _array(HIDDEN),
        "heads.news.4.weight": _array(3, HIDDEN),
        "heads.news.4.bias": _array(3),
    }
    return Sample({"config": inner, **outer}, weights, {"config": head_inner, **outer}, head_weights)


def _both(*changes: Callable[[Sample], None]) -> Callable[[Sample], None]:
    def change(sample: Sample) -> None:
        for each in changes:
            each(sample)

    return change


def _set(**changes: object) -> Callable[[Sample], None]:
    return lambda sample: sample.config.update(changes)


def _inner(**changes: object) -> Callable[[Sample], None]:
    return lambda sample: sample.inner.update(changes)


def _head(**changes: object) -> Callable[[Sample], None]:
    return lambda sample: sample.head.update(changes)


def _without(*names: str) -> Callable[[Sample], None]:
    def change(sample: Sample) -> None:
        for name in names:
            sample.config.pop(name, None)
            sample.weights.pop(name, None)
            sample.head_weights.pop(name, None)

    return change


def _tensor(name: str, array: NDArray[Any]) -> Callable[[Sample], None]:
    def change(sample: Sample) -> None:
        (sample.head_weights if name in sample.head_weights else sample.weights)[name] = array

    return change


def _file(name: str, content: bytes) -> Callable[[Sample], None]:
    return lambda sample: sample.raw.update({name: content})


def _with_value(array: NDArray[Any], value: float) -> NDArray[Any]:
    array[0, 1] = value
    return array


def _header(text: bytes, *, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


PEFT_WEIGHTS = "adapter_model.safetensors"
PEFT_CASES: dict[str, tuple[Callable[[Sample], None], str]] = {
    # The files
    "a pickle of weights": (_file("adapter_model.bin", b"\x80\x04."), r"adapter_model\.bin is a pickle file"),
    "a pickle of settings": (_file("training_args.bin", b"\x80\x04."), r"training_args\.bin is a pickle file"),
    "a pickle by another name": (_file("optimizer.PT", b"\x80\x04."), r"optimizer\.PT is a pickle file"),
    "weights of another format": (_file("model.onnx", b""), r"model\.onnx is not a kind of file"),
    "unread weights": (_file("model.safetensors", save({"x": _array(2)})), r"model\.safetensors holds weights"),
    "an empty weights file": (_file(PEFT_WEIGHTS, b""), "not a whole safetensors file: it has 0 bytes"),
    "weights cut short": (lambda s: s.raw.update({PEFT_WEIGHTS: save(s.weights)[:-5]}), "not a whole safetensors file"),
    "bytes behind the weights": (
        lambda s: s.raw.update({PEFT_WEIGHTS: save(s.weights) + b"x"}),
        "not a whole safetens",
    ),
    "a header bomb": (_file(PEFT_WEIGHTS, _header(b"{}", length=2**40)), f"declares a header of {2**40} bytes"),
    "a header past the file": (_file(PEFT_WEIGHTS, _header(b"{}", length=9999)), "not a whole safetensors file"),
    "a header nested deep": (_file(PEFT_WEIGHTS, _header(b"[" * 90_000)), "not a whole safetensors file"),
    "a header that is no JSON": (_file(PEFT_WEIGHTS, _header(b"\x80\x04\x95pickle")), "not a whole safetensors file"),
    "a header that is a list": (_file(PEFT_WEIGHTS, _header(b"[]")), "not a whole safetensors file"),
    "one name twice": (
        _file(PEFT_WEIGHTS, _header(b'{"x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"x":1}')),
        "a name stands twice",
    ),
    "metadata that is no text": (
        _file(PEFT_WEIGHTS, _header(b'{"__metadata__":{"format":7}}')),
        "metadata is not text",
    ),
    "a shape that overflows": (
        _file(PEFT_WEIGHTS, _header(b'{"x":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}')),
        "not a whole safetensors file",
    ),
    "settings that are no JSON": (_file("adapter_config.json", b"{"), r"adapter_config\.json is not JSON"),
    "settings nested deep": (_file("adapter_config.json", b"[" * 90_000), r"adapter_config\.json is not JSON"),
    "settings in no known encoding": (
        _file("adapter_config.json", b'{"a":"\xff"}'),
        r"adapter_config\.json is not JSON",
    ),
    "settings that are a list": (_file("adapter_config.json", b"[]"), "is not a JSON object"),
    "settings of a megabyte": (_file("adapter_config.json", b" " * 2**20 + b"{}"), "more than the 1048576 allowed"),
    "settings of neither library": (_without("peft_type"), "neither PEFT's .* nor AdapterHub's"),
    # The tensors
    "a missing tensor": (_without(f"{QUERY}.lora_B.weight"), r"query\.lora_B\.weight is missing"),
    "a missing pair": (
        _without(f"{QUERY}.lora_A.weight", f"{QUERY}.lora_B.weight"),
        r"query\.lora_A\.weight is missing",
    ),
    "a surplus tensor": (_tensor(f"{QUERY}.lora_E.weight", _array(4)), r"not be applied: .*lora_E\.weight"),
    "new words' embeddings": (
        _tensor("base_model.model.bert.embeddings.word_embeddings.weight", _array(9, HIDDEN)),
        r"not be applied: .*word_embeddings",
    ),
    "a pair on another layer": (
        _tensor("base_model.model.bert.encoder.layer.9.attention.self.query.lora_A.weight", _array(4, HIDDEN)),
        r"not be applied: .*layer\.9",
    ),
    "a bias": (_tensor(f"{QUERY}.bias", _array(HIDDEN)), r"not be applied: .*query\.bias"),
    "a DoRA vector": (_tensor(f"{QUERY}.lora_magnitude_vector", _array(HIDDEN)), "not be applied: .*magnitude"),
    "an adapter's name in the keys": (
        _tensor(f"{QUERY}.lora_A.default.weight", _array(4, HIDDEN)),
        r"not be applied: .*lora_A\.default",
    ),
    "a narrow matrix": (_tensor(f"{QUERY}.lora_A.weight", _array(4, 31)), r"query\.lora_A\.weight has shape \[4, 31\]"),
    "a matrix on its side": (
        _tensor(f"{QUERY}.lora_B.weight", _array(4, HIDDEN)),
        r"lora_B\.weight has shape \[4, 32\]",
    ),
    "ranks that disagree": (
        _tensor(f"{QUERY}.lora_B.weight", _array(HIDDEN, 5)),
        r"lora_B\.weight has shape \[32, 5\]",
    ),
    "rank zero": (_tensor(f"{QUERY}.lora_A.weight", _array(0, HIDDEN)), r"lora_A\.weight has shape \[0, 32\]"),
    "a vector for a matrix": (_tensor(f"{QUERY}.lora_A.weight", _array(HIDDEN)), r"lora_A\.weight has shape \[32\]"),
    "another rank than said": (_set(r=8), r"layer\.2\.attention\.self\.query has rank 4, but .* says 8"),
    "NaN": (_tensor(f"{QUERY}.lora_A.weight", _with_value(_array(4, HIDDEN), np.nan)), r"lora_A\.weight holds NaN"),
    "infinity": (
        _tensor(f"{QUERY}.lora_B.weight", _with_value(_array(HIDDEN, 4), -np.inf)),
        r"lora_B\.weight holds NaN",
    ),
    "double precision": (_tensor(f"{QUERY}.lora_A.weight", np.zeros((4, HIDDEN))), r"lora_A\.weight is F64"),
    "integers": (_tensor(f"{QUERY}.lora_A.weight", np.zeros((4, HIDDEN), np.int8)), r"lora_A\.weight is I8"),
    "no classifier": (_without("base_model.model.classifier.weight"), r"classifier\.weight is missing"),
    "a classifier without bias": (_without("base_model.model.classifier.bias"), r"classifier\.bias is missing"),
    "a classifier of another width": (
        _tensor("base_model.model.classifier.weight", _array(3, 31)),
        r"classifier\.weight has shape \[3, 31\]",
    ),
    "a regression": (
        lambda s: s.weights.update(
            {"base_model.model.classifier.weight": _array(1, HIDDEN), "base_model.model.classifier.bias": _array(1)}
        ),
        "regression",
    ),
    # The settings
    "another method": (_set(peft_type="IA3"), "peft_type = 'IA3': only LoRA"),
    "DoRA": (_set(use_dora=True), "use_dora = True: DoRA is not understood"),
    "trained biases": (_set(bias="lora_only"), "bias = 'lora_only'"),
    "biases in LoRA": (_set(lora_bias=True), "lora_bias = True: this setting is not understood"),
    "transposed weights": (_set(fan_in_fan_out=True), "fan_in_fan_out = True"),
    "a changed base": (_set(init_lora_weights="pissa"), "init_lora_weights = 'pissa': .*base model"),
    "quantised group": (_set(use_qalora=True), "use_qalora = True: this setting is not understood"),
    "trained tokens": (_set(trainable_token_indices=[1, 2]), "trainable_token_indices = "),
    "repeated layers": (_set(layer_replication=[[0, 2], [1, 3]]), "layer_replication = "),
    "parameters as targets": (_set(target_parameters=["query.weight"]), "target_parameters = "),
    "a setting of tomorrow": (_set(use_warp=0.5), "use_warp = 0.5: this setting is not understood"),
    "another module saved whole": (
        _set(modules_to_save=["classifier", "embeddings"]),
        "modules_to_save = .*embeddings",
    ),
    "a pooler that is not there": (_set(modules_to_save=["classifier", "pooler"]), r"pooler\.dense\.weight is missing"),
    "a head for answers": (_set(task_type="QUESTION_ANS"), "task_type = 'QUESTION_ANS'"),
    "a pooler for tokens": (
        _set(task_type="TOKEN_CLS", modules_to_save=["classifier", "pooler"]),
        "modules_to_save = .*reads no pooler",
    ),
    "a head for embeddings": (_set(task_type="FEATURE_EXTRACTION"), "modules_to_save = "),
    "a head of an unnamed model": (_set(task_type=None), "auto_mapping"),
    "no targets": (_set(target_modules=None), "target_modules is missing"),
    "targets without a name": (_set(target_modules=[7]), "target_modules = .*list of module names"),
    "targets that are not there": (_set(target_modules=["query", "key"]), r"key\.lora_A\.weight is missing"),
    "fewer targets than tensors": (_set(target_modules=["query"]), r"not be applied: .*value\.lora_A"),
    "fewer layers than tensors": (_set(layers_to_transform=[3]), r"not be applied: .*layer\.2"),
    "layers that are no numbers": (_set(layers_to_transform=["2"]), "layers_to_transform = "),
    "lower layers": (_set(layers_to_transform=None), r"layer\.0\.attention\.self\.query\.lora_A\.weight is missing"),
    "an explosive pattern": (
        _set(target_modules="(.*a+)+query", layers_to_transform=None),
        "target_modules = .* too complicated",
    ),
    "a pattern of many stars": (_set(rank_pattern={".*.*.*.*query": 4}), "rank_pattern = .* too complicated"),
    "a broken pattern": (_set(alpha_pattern={"(query": 4}), "alpha_pattern: .* is not a regular expression"),
    "rank as text": (_set(r="4"), "r = '4': it must be a finite number above zero"),
    "rank below zero": (_set(r=-4), "r = -4"),
    "rank that is a truth": (_set(r=True), "r = True"),
    "no alpha": (_without("lora_alpha"), "lora_alpha = None"),
    "alpha without end": (lambda s: s.config.update(lora_alpha=float("inf")), "lora_alpha = inf"),
    "alpha that no float can hold": (_set(lora_alpha=10**400), "lora_alpha = 1000"),
    "alpha that overflows the weights": (_set(lora_alpha=1e300), r"lora\.2\.q\.b holds NaN or infinite"),
    "a rank's pattern unlike the tensor": (_set(rank_pattern={"query": 2}), "query has rank 4, but .* says 2"),
    "rsLoRA as text": (_set(use_rslora="yes"), "use_rslora = 'yes'"),
}

ADAPTERHUB_CASES: dict[str, tuple[Callable[[Sample], None], str]] = {
    "a pickle": (_file("pytorch_adapter.bin", b"\x80\x04."), r"pytorch_adapter\.bin is a pickle file"),
    "a fusion": (_file("model_adapter_fusion.safetensors", save({"x": _array(2)})), "fusion.safetensors holds weights"),
    "gating": (_inner(use_gating=True), "use_gating = True: gating"),
    "hypercomplex layers": (_inner(phm_layer=True), "phm_layer = True"),
    "parallel": (_inner(is_parallel=True), "is_parallel = True"),
    "a norm before": (_inner(ln_before=True), "ln_before = True"),
    "a norm after": (_inner(ln_after=True), "ln_after = True"),
    "no norm of the model's": (_inner(original_ln_after=False), "original_ln_after = False"),
    "another residual": (_inner(residual_before_ln=False), "residual_before_ln = False"),
    "a residual after the sum": (_inner(residual_before_ln="post_add"), "residual_before_ln = 'post_add'"),
    "an invertible part": (_inner(inv_adapter="nice"), "inv_adapter = 'nice'"),
    "cross attention": (_inner(cross_adapter=True), "cross_adapter = True"),
    "a LoRA": (_inner(architecture="lora"), "architecture = 'lora'"),
    "learned scaling": (_inner(scaling="learned"), "scaling = 'learned'"),
    "a scaling that is no number": (_inner(scaling=[1.0]), r"scaling = \[1.0\]"),
    "a scaling that overflows the weights": (_inner(scaling=1e300), r"bottleneck\.2\.output\.up holds NaN or infinite"),
    "an unknown activation": (_inner(non_linearity="leakyrelu"), "non_linearity = 'leakyrelu'"),
    "an ambiguous activation": (
        _both(_without("version"), _inner(non_linearity="gelu")),
        "non_linearity = 'gelu'",
    ),
    "a setting of tomorrow": (_inner(use_warp=3), "use_warp = 3: this setting is not understood"),
    "a setting of tomorrow beside": (_set(adapter_version=2), "adapter_version = 2: this setting is not understood"),
    "another width's rank": (_inner(reduction_factor=2), r"adapter_down\.0\.weight has shape \[8, 32\], expected \[16"),
    "a rank without default": (_inner(reduction_factor={"0": 2}), "reduction_factor = None"),
    "a rank of nothing": (_inner(reduction_factor=0), "reduction_factor = 0"),
    "a rank without end": (_inner(reduction_factor=5e-324), "reduction_factor = 5e-324: the rank may be at most 1024"),
    "lower layers": (_inner(leave_out=[]), r"layer\.0\.output\.adapters\.news\.adapter_down\.0\.weight is missing"),
    "more layers than said": (_inner(leave_out=[0, 1, 2]), r"not be applied: .*layer\.2"),
    "no layers at all": (
        _both(lambda s: s.weights.clear(), _inner(leave_out=[0, 1, 2, 3])),
        "no part in any layer",
    ),
    "left out by name": (_inner(leave_out=["0"]), "leave_out = "),
    "a second place": (
        _inner(mh_adapter=True),
        r"attention\.output\.adapters\.news\.adapter_down\.0\.weight is missing",
    ),
    "neither place": (_inner(output_adapter=False), "not be applied"),
    "a place that is no truth": (_inner(output_adapter=1), "output_adapter = 1: it must be true or false"),
    "another adapter's name": (_set(name="sport"), r"adapters\.sport\.adapter_down\.0\.weight is missing"),
    "no name": (_set(name=None), "name = None"),
    "another family": (_set(model_type="roberta"), "model_type = 'roberta'"),
    "another hidden size": (_set(hidden_size=768), "hidden_size = 768: the base model's hidden size is 32"),
    "a missing tensor": (_without(f"{OUTPUT}.adapter_up.bias"), r"adapter_up\.bias is missing"),
    "a surplus tensor": (_tensor(f"{OUTPUT}.gate.weight", _array(1, HIDDEN)), r"not be applied: .*gate\.weight"),
    "a matrix on its side": (
        _tensor(f"{OUTPUT}.adapter_up.weight", _array(8, HIDDEN)),
        r"adapter_up\.weight has shape",
    ),
    "NaN": (
        _tensor(f"{OUTPUT}.adapter_up.weight", _with_value(_array(HIDDEN, 8), np.nan)),
        r"adapter\.safetensors: .*adapter_up\.weight holds NaN",
    ),
    "settings without weights": (lambda s: s.weights.clear(), "is missing"),
    "a head for tokens": (_head(head_type="tagging"), "head_type = 'tagging'"),
    "a head of three layers": (_head(layers=3), "layers = 3"),
    "a head of one layer": (_head(layers=1), r"heads\.news\.1\.weight has shape \[32, 32\], expected \[3, 32\]"),
    "a head's unknown activation": (_head(activation_function="mish"), "activation_function = 'mish'"),
    "a head's surplus bias": (_head(bias=False), r"not be applied: heads\.news\.4\.bias"),
    "a head's unknown setting": (_head(attention=True), "head_config.json: config: attention = True"),
    "a head's missing tensor": (_without("heads.news.4.weight"), r"heads\.news\.4\.weight is missing"),
    "labels that do not count": (_head(num_labels=2), "label2id = "),
    "labels with a gap": (_head(label2id={"a": 0, "b": 1, "c": 3}), "label2id = "),
    "labels that share": (_head(label2id={"a": 0, "b": 1, "c": 1}), "label2id = "),
    "labels without number": (_head(num_labels="3"), "num_labels = '3'"),
    "a regression": (
        _both(
            _head(num_labels=1, label2id=None),
            _tensor("heads.news.4.weight", _array(1, HIDDEN)),
            _tensor("heads.news.4.bias", _array(1)),
        ),
        "regression",
    ),
    "a static head of another class": (
        lambda s: s.head_config.update(config=None, model_class="BertForTokenClassification"),  # type: ignore[union-attr]
        "model_class = 'BertForTokenClassification'",
    ),
}


def _refuses(sample: Sample, weights_file: str, reason: str, folder: Path) -> None:
    sample.write(folder, weights_file)
    with pytest.raises(AdapterRefused, match=reason):
        read_adapter(folder, SPEC)


@pytest.mark.parametrize(("change", "reason"), PEFT_CASES.values(), ids=PEFT_CASES)
def test_peft_folder_is_refused_with_the_reason(change: Callable[[Sample], None], reason: str, tmp_path: Path) -> None:
    sample = peft_sample()
    change(sample)
    _refuses(sample, PEFT_WEIGHTS, reason, tmp_path)


@pytest.mark.parametrize(("change", "reason"), ADAPTERHUB_CASES.values(), ids=ADAPTERHUB_CASES)
def test_adapterhub_folder_is_refused_with_the_reason(
    change: Callable[[Sample], None], reason: str, tmp_path: Path
) -> None:
    sample = adapterhub_sample()
    change(sample)
    _refuses(sample, "adapter.safetensors", reason, tmp_path)


def test_folders_are_accepted_when_nothing_is_changed(tmp_path: Path) -> None:
    """Otherwise every case above could be refused for another reason."""
    (tmp_path / "peft").mkdir()
    peft_sample().write(tmp_path / "peft", PEFT_WEIGHTS)
    assert len(read_adapter(tmp_path / "peft", SPEC).lora) == 4
    (tmp_path / "hub").mkdir()
    adapterhub_sample().write(tmp_path / "hub", "adapter.safetensors")
    adapter = read_adapter(tmp_path / "hub", SPEC)
    assert len(adapter.bottleneck) == 2
    assert adapter.head is not None
    assert adapter.head.labels == ("bad", "fair", "good")


def test_static_head_of_adapterhub_is_read_as_bert_reads_it(tmp_path: Path) -> None:
    sample = adapterhub_sample()
    sample.head_config = {
        "config": None, "hidden_size": HIDDEN, "model_class": "BertForSequenceClassification", "model_name": "",
        "model_type": "bert", "name": None, "num_labels": 3, "version": "adapters.1.3.0",
    }  # fmt: skip
    sample.head_weights = {"classifier.weight": _array(3, HIDDEN), "classifier.bias": _array(3)}
    sample.write(tmp_path, "adapter.safetensors")
    own = read_adapter(tmp_path, SPEC).head
    assert own is not None
    assert own.uses_base_pooler


def test_canonical_folder_is_read_and_checked_against_the_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    save_adapter(lora_adapter(rng, spec=SPEC, head=head(rng, 2)), tmp_path / "adapter.safetensors")
    assert read_adapter(tmp_path, SPEC, ["no", "yes"]).summary()["labels"] == ["no", "yes"]
    with pytest.raises(AdapterRefused, match="layer 2 is one of the 3 lower layers"):
        read_adapter(tmp_path, sample_spec(k=3))
    with pytest.raises(AdapterRefused, match=r"lora\.2\.q\.a has shape"):
        read_adapter(tmp_path, sample_spec(hidden=64))


def test_folder_is_refused_when_it_holds_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match="no adapter found"):
        read_adapter(tmp_path, SPEC)
    with pytest.raises(AdapterRefused, match="is not a folder"):
        read_adapter(tmp_path / "missing", SPEC)
    (tmp_path / "inside").mkdir()
    with pytest.raises(AdapterRefused, match="inside is not a plain file"):
        read_adapter(tmp_path, SPEC)


def test_folder_is_refused_when_its_weights_pass_the_limit(tmp_path: Path) -> None:
    adapterhub_sample().write(tmp_path, "adapter.safetensors")
    total = sum((tmp_path / name).stat().st_size for name in ("adapter.safetensors", "model_head.safetensors"))
    read_adapter(tmp_path, SPEC, max_bytes=total)
    with pytest.raises(AdapterRefused, match=r"model_head\.safetensors has \d+ bytes, more than the \d+ allowed"):
        read_adapter(tmp_path, SPEC, max_bytes=total - 1)


NAME = "bert.encoder.layer.2.attention.self.value"
EXPLOSIVE = {
    "repeated choice": "(a|a)*" * 20,
    "repeated group": "(.+)+!",
    "escaped backslash before the group's end": r"(.+|x\\)*!",
    "verbose mode": "(?x)(.+) *!",
    "flag inside": "(?x:(.+) *)!",
    "stars in a row": ".*" * 9 + "!",
    "choices without a quantifier": "".join(f"({letter}|{letter})" for letter in NAME.replace(".", "_")) + "!",
    "lookahead": "(?=(.+)+!)",
}


@pytest.mark.parametrize("pattern", EXPLOSIVE.values(), ids=EXPLOSIVE)
@pytest.mark.parametrize("field", ["target_modules", "exclude_modules", "rank_pattern"])
def test_pattern_is_refused_when_its_worst_case_is_slow(field: str, pattern: str, tmp_path: Path) -> None:
    sample = peft_sample()
    sample.config |= {field: {pattern: 4} if field == "rank_pattern" else pattern, "layers_to_transform": None}
    _refuses(sample, PEFT_WEIGHTS, f"{field} = .* too complicated", tmp_path)


def test_patterns_are_refused_when_there_are_too_many(tmp_path: Path) -> None:
    sample = peft_sample()
    sample.config["rank_pattern"] = {f".*{number}.*": 4 for number in range(2000)}
    _refuses(sample, PEFT_WEIGHTS, "rank_pattern = 2000: these are too many", tmp_path)


@pytest.mark.parametrize("pattern", [".*" * 3 + "!", "(?:b|b)" * 9 + ".*!", "(b|b)(e|e)(r|r)(t|t).*.*!"])
def test_slowest_accepted_patterns_finish_quickly(pattern: str, tmp_path: Path) -> None:
    sample = peft_sample()
    sample.config |= {"target_modules": pattern, "layers_to_transform": None}
    sample.write(tmp_path, PEFT_WEIGHTS)
    begun = time.process_time()
    with pytest.raises(AdapterRefused):
        read_adapter(tmp_path, SPEC)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    "pattern",
    [
        r".*\.layer\.(2|3)\.attention\.self\.(query|value)",
        r"bert\.encoder\.layer\.[23]\.attention\.self\.(?:query|value)",
        r".*layer\.([2-9]|10|11)\..*(query|value)",
    ],
)
def test_ordinary_pattern_is_accepted(pattern: str, tmp_path: Path) -> None:
    sample = peft_sample()
    sample.config |= {"target_modules": pattern, "layers_to_transform": None}
    sample.write(tmp_path, PEFT_WEIGHTS)
    assert len(read_adapter(tmp_path, SPEC).lora) == 4
