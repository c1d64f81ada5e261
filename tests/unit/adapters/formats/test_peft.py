"""Folders that PEFT itself writes, against what PEFT's own modules compute."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from peft.tuners.lora import Linear as PeftLinear
from safetensors.numpy import load_file, save_file
from transformers import BertForSequenceClassification, BertModel

from hmi.adapters import Adapter, AdapterKind, Lora, Pooling, Transform
from hmi.adapters.formats import read_adapter
from hmi.adapters.formats.modules import MODULES
from hmi.errors import AdapterRefused
from hmi.spec import Family, Site
from tests.adapter_samples import sample_spec
from tests.tiny import tiny_bert_config

SPEC = sample_spec()
ALL = list(MODULES[Family.BERT])
_SITE_OF_MODULE = {module: site for module, (site,) in MODULES[Family.BERT].items()}


def _peft(config: LoraConfig, *, labels: int = 3) -> Any:
    """A `PeftModel` of a tiny BERT, with random adapters."""
    torch.manual_seed(5)
    if config.task_type == TaskType.FEATURE_EXTRACTION:
        base: Any = BertModel(tiny_bert_config())
    else:
        base = BertForSequenceClassification(tiny_bert_config(num_labels=labels))
    model = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(0, 0.2)
    return model.eval()


def _lora_modules(model: Any) -> Iterator[tuple[tuple[int, Site], PeftLinear]]:
    for name, module in model.named_modules():
        if isinstance(module, PeftLinear) and "encoder.layer." in name:
            layer, _, rest = name.split("encoder.layer.")[1].partition(".")
            yield (int(layer), _SITE_OF_MODULE[rest]), module


def _assert_same_maths(model: Any, adapter: Adapter) -> None:
    """The addition to each linear layer, at exactly these places."""
    modules = dict(_lora_modules(model))
    assert set(modules) == set(adapter.lora)
    for key, module in modules.items():
        lora = adapter.lora[key]
        x = torch.randn(5, SPEC.site_shape(key[1])[0])
        with torch.no_grad():
            expected = (module(x) - module.base_layer(x)).numpy()
        np.testing.assert_allclose((x.numpy() @ lora.a.T) @ lora.b.T, expected, rtol=0, atol=1e-5)


def _round_trip(config: LoraConfig, folder: Path) -> Adapter:
    model = _peft(config)
    model.save_pretrained(folder)
    adapter = read_adapter(folder, SPEC)
    _assert_same_maths(model, adapter)
    return adapter


CONFIGS: dict[str, dict[str, Any]] = {
    "query and value": {"r": 4, "target_modules": ["query", "value"]},
    "every linear": {"r": 3, "lora_alpha": 10, "target_modules": ALL},
    "rank-stabilised": {"r": 9, "lora_alpha": 6, "use_rslora": True, "target_modules": ["key"]},
    "patterns": {
        "r": 4,
        "target_modules": ["query", "value", "intermediate.dense"],
        "rank_pattern": {"value": 2, r"layer\.3\.attention\.self\.query": 7},
        "alpha_pattern": {"layer.1.attention.self.value": 5, "intermediate.dense": 0.5},
    },
    "patterns and rank-stabilised": {
        "r": 4,
        "target_modules": ["query", "value"],
        "rank_pattern": {"value": 2},
        "alpha_pattern": {"query": 3},
        "use_rslora": True,
    },
    "some layers": {"r": 4, "target_modules": ["query"], "layers_to_transform": [2, 3], "layers_pattern": "layer"},
    "one layer": {"r": 4, "target_modules": ["query", "output.dense"], "layers_to_transform": 3},
    "a regular expression": {"r": 4, "target_modules": r".*layer\.(2|3)\.attention\.self\.(query|key)"},
    "full names": {
        "r": 2,
        "target_modules": ["bert.encoder.layer.2.output.dense", "bert.encoder.layer.0.attention.self.key"],
    },
    "an exclusion": {"r": 4, "target_modules": ["query", "value"], "exclude_modules": r".*layer\.0\..*"},
    "gaussian": {"r": 4, "target_modules": ["value"], "init_lora_weights": "gaussian", "lora_dropout": 0.1},
}


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
def test_lora_adds_what_peft_adds(options: dict[str, Any], tmp_path: Path) -> None:
    adapter = _round_trip(LoraConfig(task_type=TaskType.SEQ_CLS, **options), tmp_path)
    assert adapter.kind is AdapterKind.LORA
    assert adapter.head is not None


def test_classifier_is_read_with_the_bases_pooler(tmp_path: Path) -> None:
    model = _peft(LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules=["query"]), labels=7)
    model.save_pretrained(tmp_path)
    head = read_adapter(tmp_path, SPEC).head
    assert head is not None
    assert (head.pooling, head.transform, head.uses_base_pooler) == (Pooling.CLS, Transform.POOLER, True)
    classifier = model.base_model.model.classifier.modules_to_save["default"]
    np.testing.assert_array_equal(head.out, classifier.weight.detach().numpy())
    np.testing.assert_array_equal(head.out_bias, classifier.bias.detach().numpy())
    assert head.labels == tuple(f"LABEL_{number}" for number in range(7))


def test_head_has_its_own_pooler_when_it_was_saved(tmp_path: Path) -> None:
    options: dict[str, Any] = {"r": 4, "target_modules": ["query"], "modules_to_save": ["classifier", "pooler"]}
    model = _peft(LoraConfig(task_type=TaskType.SEQ_CLS, **options))
    model.save_pretrained(tmp_path)
    head = read_adapter(tmp_path, SPEC).head
    assert head is not None
    assert not head.uses_base_pooler
    own = model.base_model.model.bert.pooler.modules_to_save["default"].dense
    np.testing.assert_array_equal(head.dense, own.weight.detach().numpy())
    np.testing.assert_array_equal(head.dense_bias, own.bias.detach().numpy())


def test_feature_extraction_has_no_head_and_no_prefix(tmp_path: Path) -> None:
    config = LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=4, target_modules=["query", "key", "value"])
    assert _round_trip(config, tmp_path).head is None


def test_head_is_understood_without_task_type_when_the_model_class_is_named(tmp_path: Path) -> None:
    config = LoraConfig(r=4, target_modules=["query"], modules_to_save=["classifier"])
    adapter = _round_trip(config, tmp_path)
    assert adapter.head is not None


def test_all_linear_is_read_when_the_loss_never_reached_the_pooler(tmp_path: Path) -> None:
    model = _peft(LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=4, target_modules="all-linear"))
    idle = model.base_model.model.pooler.dense.lora_B["default"].weight
    model.save_pretrained(tmp_path / "trained")
    with pytest.raises(AdapterRefused, match="LoRA on the pooler"):
        read_adapter(tmp_path / "trained", SPEC)
    with torch.no_grad():
        idle.zero_()
    model.save_pretrained(tmp_path / "idle")
    adapter = read_adapter(tmp_path / "idle", SPEC)
    _assert_same_maths(model, adapter)
    assert len(adapter.lora) == 4 * 6


def test_scaling_is_alpha_over_rank_or_over_its_root(tmp_path: Path) -> None:
    for by_root, factor in ((False, 6 / 9), (True, 6 / math.sqrt(9))):
        config = LoraConfig(
            task_type=TaskType.FEATURE_EXTRACTION, r=9, lora_alpha=6, use_rslora=by_root, target_modules=["query"]
        )
        model = _peft(config)
        model.save_pretrained(tmp_path / f"{by_root}")
        lora: Lora = read_adapter(tmp_path / f"{by_root}", SPEC).lora[1, Site.Q]
        plain = model.base_model.model.encoder.layer[1].attention.self.query.lora_B["default"].weight
        np.testing.assert_allclose(lora.b, plain.detach().numpy() * factor, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    model = _peft(LoraConfig(task_type=TaskType.SEQ_CLS, r=4, lora_alpha=4, target_modules=["query"])).to(dtype)
    model.save_pretrained(tmp_path)
    adapter = read_adapter(tmp_path, SPEC)
    plain = model.base_model.model.bert.encoder.layer[2].attention.self.query.lora_A["default"].weight
    np.testing.assert_array_equal(adapter.lora[2, Site.Q].a, plain.detach().float().numpy())


def test_older_configuration_is_read_when_it_lacks_newer_fields(tmp_path: Path) -> None:
    _peft(LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules=["query"])).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    old = (
        "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights", "lora_alpha",
        "lora_dropout", "modules_to_save", "peft_type", "r", "target_modules", "task_type",
    )  # fmt: skip
    config = json.loads(path.read_text())
    path.write_text(json.dumps({name: config[name] for name in old}))
    assert len(read_adapter(tmp_path, SPEC).lora) == 4


def test_adapter_for_the_upper_layers_is_accepted_when_the_lower_ones_are_looked_up(tmp_path: Path) -> None:
    options: dict[str, Any] = {"r": 4, "target_modules": ["query"]}
    _peft(LoraConfig(task_type=TaskType.SEQ_CLS, layers_to_transform=[2, 3], **options)).save_pretrained(
        tmp_path / "up"
    )
    _peft(LoraConfig(task_type=TaskType.SEQ_CLS, **options)).save_pretrained(tmp_path / "all")
    spec = sample_spec(k=2)
    assert sorted({layer for layer, _ in read_adapter(tmp_path / "up", spec).lora}) == [2, 3]
    with pytest.raises(AdapterRefused, match="layer 0 is one of the 2 lower layers"):
        read_adapter(tmp_path / "all", spec)


def test_dora_is_refused_when_peft_wrote_it(tmp_path: Path) -> None:
    _peft(LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules=["query"], use_dora=True)).save_pretrained(
        tmp_path
    )
    with pytest.raises(AdapterRefused, match="DoRA is not understood"):
        read_adapter(tmp_path, SPEC)


def test_labels_are_named_when_they_are_given(tmp_path: Path) -> None:
    _peft(LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules=["query"])).save_pretrained(tmp_path)
    head = read_adapter(tmp_path, SPEC, ["bad", "fair", "good"]).head
    assert head is not None
    assert head.labels == ("bad", "fair", "good")
    with pytest.raises(AdapterRefused, match="2 labels were given, but the head has 3 outputs"):
        read_adapter(tmp_path, SPEC, ["bad", "good"])


def test_labels_are_refused_when_there_is_no_head(tmp_path: Path) -> None:
    config = LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=4, target_modules=["query"])
    _peft(config).save_pretrained(tmp_path)
    with pytest.raises(AdapterRefused, match="no head"):
        read_adapter(tmp_path, SPEC, ["bad", "good"])


def test_every_tensor_of_peft_matters(tmp_path: Path) -> None:
    """Without any single tensor of a real file the adapter is refused, and the tensor is named."""
    _peft(LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules=ALL)).save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    for name in tensors:
        save_file({other: array for other, array in tensors.items() if other != name}, path)
        with pytest.raises(AdapterRefused, match=name.replace(".", r"\.") + " is missing"):
            read_adapter(tmp_path, SPEC)
