"""Classes of texts from decoders are those of transformers and PEFT, with any batch-mates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2ForSequenceClassification, LlamaForSequenceClassification

from hmi.adapters import Adapter, AdapterKind, Pooling
from hmi.adapters.formats import read_adapter, save_adapter
from hmi.adapters.maths import HeadTensors, SingleAdapter, apply_head
from hmi.errors import AdapterRefused, InvalidInput
from hmi.items import Generation, GenerationParams, Item, ModelRef, Sampling, Task
from hmi.knowledge import unpack, window_keys
from hmi.knowledge.store import round_trip
from hmi.models.convert import convert_pretrained
from hmi.models.families import load_hgpt
from hmi.spec import read_spec
from tests.engines import FolderSource, numbers, random_adapter, random_head, tiny_engine
from tests.tiny import tiny_decoder_folder, tiny_gpt2, tiny_llama

FAMILIES = {
    "gpt2": (tiny_gpt2, GPT2ForSequenceClassification, ["c_attn", "c_fc"]),
    "llama": (tiny_llama, LlamaForSequenceClassification, ["q_proj", "v_proj", "gate_proj"]),
}
Ids = tuple[int, ...]


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def some_texts(count: int = 12) -> list[Ids]:
    rng = np.random.default_rng(5)
    return [tuple(rng.integers(4, 100, rng.integers(1, 40)).tolist()) for _ in range(count)]


def asked(base: str, adapter: str, ids: Sequence[int]) -> Item:
    return Item(ModelRef(base, "general", adapter), Task.CLASSIFY, tokens=tuple(ids))


@torch.inference_mode()
def test_classes_are_those_of_peft_on_transformers(family: str, tmp_path: Path) -> None:
    make, classifier, targets = FAMILIES[family]
    base = make()
    source = tiny_decoder_folder(base, tmp_path / "source")
    convert_pretrained(source, tmp_path / "k0")
    theirs: dict[str, Any] = {}
    models = FolderSource({"k0": tmp_path / "k0"})
    for number in range(3):
        torch.manual_seed(number)
        kind: Any = classifier
        plain = kind.from_pretrained(source, num_labels=2 + number).eval()
        settings = LoraConfig(
            r=4, lora_alpha=8, target_modules=targets, task_type="SEQ_CLS", fan_in_fan_out=family == "gpt2"
        )
        model: Any = get_peft_model(plain, settings)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn_like(parameter))
        model.save_pretrained(tmp_path / f"peft-{number}")
        adapter = read_adapter(tmp_path / f"peft-{number}", read_spec(tmp_path / "k0"))
        assert adapter.head is not None
        assert adapter.head.pooling is Pooling.LAST
        models.adapters[f"t{number}"] = tmp_path / f"t{number}.safetensors"
        save_adapter(adapter, models.adapters[f"t{number}"])
        theirs[f"t{number}"] = model.eval()
    pairs = [(f"t{number % 3}", ids) for number, ids in enumerate(some_texts())]
    with tiny_engine(models) as engine:
        found = numbers(engine.submit([asked("k0", *pair) for pair in pairs]).result(60))
    for (tenant, ids), probs in zip(pairs, found, strict=True):
        # Their classifier reads the last token that is no padding; alone there is none.
        expected = theirs[tenant](torch.tensor([ids])).logits[0].softmax(-1)
        np.testing.assert_allclose(probs, expected.numpy(), atol=2e-5)


@torch.inference_mode()
def plain_probs(model: Any, adapter: Adapter, ids: Ids) -> np.ndarray:
    windows = unpack(window_keys(np.array(ids), np.array([len(ids)]), looks_back=True))
    rows = round_trip(model.lower(torch.from_numpy(windows)).numpy(), model.spec.row_dtype)
    mask = torch.ones(1, len(ids), dtype=torch.bool)
    hidden = model.upper(model.merge(torch.from_numpy(rows)[None]), mask, SingleAdapter.of(adapter))
    assert adapter.head is not None
    logits = apply_head(adapter.head, HeadTensors.of(adapter.head), hidden, mask, None)
    probs: np.ndarray = logits[0].softmax(-1).numpy()
    return probs


def test_looked_up_layers_give_what_a_plain_windowed_model_does_beside_texts_that_go_on(
    family: str, tmp_path: Path
) -> None:
    convert_pretrained(tiny_decoder_folder(FAMILIES[family][0](), tmp_path / "source"), tmp_path / "k2", k=2)
    spec = read_spec(tmp_path / "k2")
    models = FolderSource({"k2": tmp_path / "k2"})
    adapters: dict[str, Adapter] = {}
    for number, pooling in enumerate((Pooling.LAST, Pooling.MEAN)):
        lora = random_adapter(spec, AdapterKind.LORA, 4, 2, number)
        head = random_head(spec, 3, np.random.default_rng(number), pooling=pooling)
        name = f"t{number}"
        adapters[name] = Adapter(lora.kind, lora.lora, {}, True, lora.activation, head)
        models.adapters[name] = tmp_path / f"{name}.safetensors"
        save_adapter(adapters[name], models.adapters[name])
    model = load_hgpt(tmp_path / "k2")
    pairs = [(f"t{number % 2}", ids) for number, ids in enumerate(some_texts())]
    params = GenerationParams(max_tokens=8, sampling=Sampling(temperature=0))
    continued = Item(ModelRef("k2", "general", None), Task.GENERATE, tokens=(5, 6, 7), params=params)
    with tiny_engine(models) as engine:
        outcomes = engine.submit([continued, *(asked("k2", *pair) for pair in pairs), continued]).result(60)
    assert isinstance(outcomes[0].result, Generation)
    assert outcomes[0].result == outcomes[-1].result
    for (tenant, ids), probs in zip(pairs, numbers(outcomes[1:-1]), strict=True):
        np.testing.assert_allclose(probs, plain_probs(model, adapters[tenant], ids), atol=2e-5)


def test_what_a_decoder_cannot_answer_is_refused(family: str, tmp_path: Path) -> None:
    convert_pretrained(tiny_decoder_folder(FAMILIES[family][0](), tmp_path / "source"), tmp_path / "k0")
    spec = read_spec(tmp_path / "k0")
    with tiny_engine(FolderSource({"k0": tmp_path / "k0"})) as engine:
        items = [Item(ModelRef("k0", "general", None), task, tokens=(5, 6)) for task in (Task.EMBED, Task.CLASSIFY)]
        errors = [outcome.error for outcome in engine.submit(items).result(60)]
    assert all(isinstance(error, InvalidInput) for error in errors)
    head = random_head(spec, 2, np.random.default_rng(0), pooling=Pooling.CLS)
    lora = random_adapter(spec, AdapterKind.LORA, 4, 2, 0)
    with pytest.raises(AdapterRefused, match="no pooling 'cls'"):
        Adapter(lora.kind, lora.lora, {}, True, lora.activation, head).validate(spec)
