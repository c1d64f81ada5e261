"""k = 0 against the libraries that tenants train with: transformers, PEFT and AdapterHub's `adapters`.

Adapters of 16 tenants are made and saved by those libraries themselves, imported, and run in one batch of
32 sequences; each row must equal what the tenant's own library says for it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig, TaskType, get_peft_model
from transformers import BertForSequenceClassification

from hmi.adapters import Activation, Adapter, AdapterKind, Head, Pooling, Transform
from hmi.adapters.formats import read_adapter, save_adapter
from hmi.engine import Engine, EngineConfig
from hmi.items import Item, ModelRef, Task
from hmi.models.convert import convert_pretrained
from hmi.spec import read_spec
from tests.engines import FolderSource, keep_batches, numbers
from tests.oracles.adapterhub import AdapterHubOracle, make_adapterhub_oracle

TOLERANCE = 1e-5
LABELS = (2, 3, 7)
# Tenants by where their adapter was made: 8 by PEFT, 6 by AdapterHub, 2 with a head alone.
PEFT = {
    f"peft-{number}": (rank, targets, LABELS[number % 3], rslora)
    for number, (rank, targets, rslora) in enumerate(
        [
            (4, ["query", "value"], False),
            (8, ["query", "key", "value"], False),
            (16, ["query", "value"], True),
            (4, ["attention.output.dense", "intermediate.dense"], False),
            (8, ["output.dense"], False),
            (16, ["query", "key", "value", "intermediate.dense", "output.dense"], False),
            (4, ["value"], True),
            (8, ["query", "value"], False),
        ]
    )
}
ADAPTERHUB = ["pfeiffer", "houlsby", "narrow", "wide", "linear_head", "upper_houlsby"]
PLAIN = {"plain-0": 2, "plain-1": 7}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> AdapterHubOracle:
    return make_adapterhub_oracle(tmp_path_factory.mktemp("adapterhub"))


def _randomise(model: torch.nn.Module, *parts: str) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in parts):
                parameter.normal_(0, 0.2)


def _peft_logits(oracle: AdapterHubOracle, name: str, folder: Path) -> NDArray[np.float32]:
    """Make the tenant's PEFT adapter, save it into `folder`, and say what PEFT answers."""
    rank, targets, labels, rslora = PEFT[name]
    torch.manual_seed(sum(name.encode()))
    base = BertForSequenceClassification.from_pretrained(oracle.base, num_labels=labels)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=2 * rank, target_modules=targets, use_rslora=rslora
    )
    model = get_peft_model(base, config)
    _randomise(model, "lora_A", "lora_B", "classifier")
    model.save_pretrained(str(folder))
    return _logits(model, oracle)


def _plain_logits(oracle: AdapterHubOracle, name: str) -> tuple[Adapter, NDArray[np.float32]]:
    """A tenant with a classifier on the base model's pooler, and what transformers answers."""
    torch.manual_seed(sum(name.encode()))
    model = BertForSequenceClassification.from_pretrained(oracle.base, num_labels=PLAIN[name])
    _randomise(model, "classifier")
    weight, bias = (each.detach().numpy() for each in (model.classifier.weight, model.classifier.bias))
    labels = tuple(f"LABEL_{number}" for number in range(PLAIN[name]))
    head = Head(Pooling.CLS, Transform.POOLER, Activation.TANH, None, None, weight, bias, labels, multi_label=False)
    adapter = Adapter(AdapterKind.NONE, {}, {}, adapter_before_norm=True, activation=Activation.RELU, head=head)
    return adapter, _logits(model, oracle)


def _logits(model: torch.nn.Module, oracle: AdapterHubOracle) -> NDArray[np.float32]:
    model.eval()
    with torch.no_grad():
        out = model(input_ids=torch.from_numpy(oracle.ids), attention_mask=torch.from_numpy(oracle.mask).long())
    logits: NDArray[np.float32] = out.logits.numpy()
    return logits


@pytest.fixture(scope="module")
def expected(
    oracle: AdapterHubOracle, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FolderSource, dict[str, NDArray[np.float32]]]:
    """All 16 tenants' adapters as imported, and each library's logits [sequences, labels]."""
    root = tmp_path_factory.mktemp("tenants")
    spec = convert_pretrained(oracle.base, root / "base")
    source, logits = FolderSource({"base": root / "base"}), dict[str, NDArray[np.float32]]()
    adapters: dict[str, Adapter] = {}
    for name in PEFT:
        logits[name] = _peft_logits(oracle, name, root / name)
        adapters[name] = read_adapter(root / name, spec)
    for name in ADAPTERHUB:
        logits[name] = oracle.logits[name]
        adapters[name] = read_adapter(oracle.adapters[name], spec)
    for name in PLAIN:
        adapters[name], logits[name] = _plain_logits(oracle, name)
    for name, adapter in adapters.items():
        source.adapters[name] = root / f"{name}.safetensors"
        save_adapter(adapter, source.adapters[name])
    return source, logits


def test_a_mixed_batch_equals_transformers_peft_and_adapterhub_when_16_tenants_share_it(
    oracle: AdapterHubOracle,
    expected: tuple[FolderSource, dict[str, NDArray[np.float32]]],
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    source, logits = expected
    wanted = [(name, (turn + 2 * number) % 4) for turn in range(2) for number, name in enumerate(logits)]
    items = [
        Item(
            ModelRef("base", "general", name),
            Task.CLASSIFY,
            tokens=tuple(oracle.ids[sequence][oracle.mask[sequence]].tolist()),
        )
        for name, sequence in wanted
    ]
    assert len(items) == 32
    assert len({item.model.adapter for item in items}) == 16
    config = EngineConfig("cpu", "float32", batch_tokens=4096, batch_rows=32, padding_share=1.0, batch_cost=4096)
    with Engine(config, source) as engine:
        ran = keep_batches(engine, monkeypatch)
        outcomes = engine.submit(items).result(60)
        assert engine.stats().batches == 1

    raw = ran[0].logits
    difference = 0.0
    for row, task in enumerate(ran[0].staged.tasks):
        name, sequence = wanted[task.index]
        reference = logits[name][sequence]
        difference = max(difference, float(np.abs(raw[row, : len(reference)] - reference).max()))
    record_property("largest_logit_difference", difference)
    assert difference <= TOLERANCE

    for (name, sequence), found in zip(wanted, numbers(outcomes), strict=True):
        reference = logits[name][sequence].astype(np.float64)
        multi_label = name == "upper_houlsby"
        probs = 1 / (1 + np.exp(-reference)) if multi_label else np.exp(reference) / np.exp(reference).sum()
        np.testing.assert_allclose(found, probs, atol=TOLERANCE, rtol=0)


def test_embeddings_equal_adapterhub_when_the_adapter_has_no_head(
    oracle: AdapterHubOracle, expected: tuple[FolderSource, dict[str, NDArray[np.float32]]], tmp_path: Path
) -> None:
    source, _ = expected
    source.adapters["headless"] = tmp_path / "headless.safetensors"
    save_adapter(
        read_adapter(oracle.adapters["headless"], read_spec(source.bases["base"])), source.adapters["headless"]
    )
    items = [
        Item(ModelRef("base", "general", "headless"), Task.EMBED, tokens=tuple(ids[mask].tolist()))
        for ids, mask in zip(oracle.ids, oracle.mask, strict=True)
    ]
    with Engine(EngineConfig("cpu", "float32"), source) as engine:
        found = numbers(engine.submit(items).result(60))
    for row, vector in enumerate(found):
        mean = oracle.hidden["headless"][row][oracle.mask[row]].mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=TOLERANCE, rtol=0)
