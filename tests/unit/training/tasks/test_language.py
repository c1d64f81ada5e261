"""Language modelling against transformers' own loss, and up to the engine's generated text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hmi.adapters import AdapterKind, Pooling
from hmi.adapters.formats import read_adapter, save_adapter
from hmi.bench import OneBase
from hmi.cli.main import app
from hmi.engine import Engine, EngineConfig
from hmi.errors import InvalidInput
from hmi.items import Classification, Generation, GenerationParams, Item, ModelRef, Sampling, Task
from hmi.knowledge.lookup import KnowledgeTree
from hmi.models.convert import convert_pretrained
from hmi.models.families import load_hgpt, load_tokenizer
from hmi.models.text import load_chat
from hmi.spec import read_spec
from hmi.training.adapter import train_adapter
from hmi.training.data import (
    AnyExample,
    ChatExample,
    CompletionExample,
    Example,
    MultiLabelExample,
    Span,
    TaggedExample,
)
from hmi.training.lower import LowerStates
from hmi.training.plan import TrainConfig
from hmi.training.tasks import Language, Network, Preprocessor
from tests.tiny import TINY_WORDS, tiny_base, tiny_decoder_folder, tiny_gpt2, tiny_llama

Make = Callable[..., Any]
BOTH = pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
QUICK = TrainConfig(AdapterKind.LORA, rank=8, epochs=30, batch_size=8, learning_rate=1e-2, dtype="float32", dev_share=0)
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def base_of(make: Make, folder: Path, k: int = 0) -> Path:
    source = tiny_decoder_folder(make(), folder / "source")
    (source / "chat_template.jinja").write_text(TEMPLATE)
    convert_pretrained(source, folder / f"k{k}", k=k)
    return folder / f"k{k}"


def verses(count: int, seed: int = 1) -> list[CompletionExample]:
    """Every word is followed by the next one."""
    starts = np.random.default_rng(seed).integers(0, 30, count)
    return [CompletionExample(TINY_WORDS[start], " ".join(TINY_WORDS[start + 1 : start + 5])) for start in starts]


@torch.no_grad()
@BOTH
def test_loss_is_that_of_transformers_on_the_completions_tokens(make: Make, tmp_path: Path) -> None:
    base = base_of(make, tmp_path)
    model, tokenizer, theirs = load_hgpt(base), load_tokenizer(base), make()
    objective = Language()
    examples = [*verses(5), CompletionExample("", "w3 w4 w5 w6 w7"), CompletionExample("w1 w2 w3", "w9")]
    part = objective.prepare(examples, Preprocessor(tokenizer, model.spec, 40, partial(LowerStates, model)))

    class Plain(torch.nn.Module):
        def maths(self, dtype: torch.dtype) -> Any:
            return model._no_adapters

    plain: Any = Plain()
    network = Network(model, plain, lambda: None)
    ids = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(each) for each in part.ids], batch_first=True)
    labels = torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        prompt = len(tokenizer.encode(example.prompt).ids) if example.prompt else 1
        assert int(part.first[row]) == prompt
        labels[row, prompt : len(part.ids[row])] = ids[row, prompt : len(part.ids[row])]
        assert part.ids[row][-1] == 3  # what ends a text is learnt too
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(each) for each in part.ids])[:, None]
    expected = float(theirs(input_ids=ids, attention_mask=mask.long(), labels=labels).loss)
    assert float(objective.loss(network, part, list(range(len(examples))))) == pytest.approx(expected, rel=1e-4)
    metrics = objective.evaluate(network, part)
    assert metrics.loss == pytest.approx(expected, rel=1e-4)
    assert metrics.values["perplexity"] == pytest.approx(np.exp(expected), rel=1e-4)
    assert metrics.score == pytest.approx(np.exp(-expected), rel=1e-4)


@BOTH
@pytest.mark.parametrize("k", [0, 2])
def test_engine_generates_the_trained_text(make: Make, k: int, tmp_path: Path) -> None:
    base = base_of(make, tmp_path, k)
    # Other texts of the same tokens: only the order of the thirty words is to be learnt.
    dev = [CompletionExample(each.prompt, f"{each.completion} ") for each in verses(30, seed=2)]
    trained = train_adapter(base, verses(120), QUICK, dev)
    report = trained.report
    assert report.dev is not None
    assert report.dev.values["token_accuracy"] > 0.9
    assert report.dev.score > (report.baseline or 0)
    save_adapter(trained.adapter, tmp_path / "a.safetensors")
    spec = read_spec(base)
    tree = KnowledgeTree(0, {"general": None}, {}, spec.row_dtype, spec.hidden_size)
    source = OneBase("base", base, tree)
    source.adapters["a"] = tmp_path / "a.safetensors"
    params = GenerationParams(max_tokens=8, sampling=Sampling(temperature=0))
    with Engine(
        EngineConfig(device="cpu", dtype="float32", device_threads=1, device_adapter_bytes=2**22, cache_bytes=2**22),
        source,
    ) as engine:
        items = [
            Item(ModelRef("base", "general", "a"), Task.GENERATE, text=f"w{n}", params=params) for n in range(5, 15)
        ]
        results = [outcome.result for outcome in engine.submit(items).result()]
    said = [result.text for result in results if isinstance(result, Generation)]
    right = sum(text == "".join(f" w{m}" for m in range(n + 1, n + 5)) for n, text in enumerate(said, start=5))
    assert right >= 8


@BOTH
@pytest.mark.parametrize("k", [0, 2])
def test_engine_predicts_the_trained_classes(make: Make, k: int, tmp_path: Path) -> None:
    """What decides stands anywhere in the text, so that only the last token has seen it for sure."""
    base = base_of(make, tmp_path, k)
    rng = np.random.default_rng(3)

    def some(count: int) -> list[tuple[str, str]]:
        found = []
        for label in rng.integers(0, 2, count):
            words = [TINY_WORDS[word] for word in rng.integers(0, 25, rng.integers(2, 9))]
            words[int(rng.integers(len(words)))] = TINY_WORDS[30 + label]
            found.append((" ".join(words), ("no", "yes")[label]))
        return found

    learnt, judged = some(240), some(60)
    config = dataclasses.replace(QUICK, epochs=15)
    if k:
        trained = train_adapter(base, [MultiLabelExample(text, (label,)) for text, label in learnt], config)
    else:
        trained = train_adapter(base, [Example(*each) for each in learnt], config)
    spec = read_spec(base)
    tree = KnowledgeTree(0, {"general": None}, {}, spec.row_dtype, spec.hidden_size)
    source = OneBase("base", base, tree)
    assert trained.adapter.head is not None
    assert trained.adapter.head.pooling is Pooling.LAST
    source.adapters["a"] = tmp_path / "a.safetensors"
    save_adapter(trained.adapter, source.adapters["a"])
    with Engine(
        EngineConfig(device="cpu", dtype="float32", device_threads=1, device_adapter_bytes=2**22), source
    ) as engine:
        items = [Item(ModelRef("base", "general", "a"), Task.CLASSIFY, text=text) for text, _ in judged]
        results = [outcome.result for outcome in engine.submit(items).result()]
    said = [each.label for each in results if isinstance(each, Classification)]
    assert np.mean([label == truth for label, (_, truth) in zip(said, judged, strict=True)]) > 0.9


def test_chat_answers_are_trained_after_the_rendered_prompt(tmp_path: Path) -> None:
    base = base_of(tiny_llama, tmp_path)
    model, tokenizer = load_hgpt(base), load_tokenizer(base)
    texts = Preprocessor(tokenizer, model.spec, 40, partial(LowerStates, model), load_chat(base))
    part = Language().prepare([ChatExample((("system", "w1"), ("user", "w2 w3")), "w4 w5")], texts)
    assert part.ids[0].tolist() == [6, 7, 8, 9, 10, 3]
    assert part.first.tolist() == [3]
    without = Preprocessor(tokenizer, model.spec, 40, partial(LowerStates, model))
    with pytest.raises(InvalidInput, match="no chat template"):
        Language().prepare([ChatExample((("user", "w2"),), "w4")], without)


def test_task_is_refused_when_the_family_cannot_learn_it(tmp_path: Path) -> None:
    decoder, encoder = base_of(tiny_gpt2, tmp_path), tiny_base(tmp_path / "bert", k=0)
    with pytest.raises(InvalidInput, match="is a gpt2 and learns text generation and classes of texts, not tokens"):
        train_adapter(
            decoder,
            [
                TaggedExample("w1", (Span(0, 2, "A"),), entities=False),
                TaggedExample("w2", (Span(0, 2, "B"),), entities=False),
            ],
            QUICK,
        )
    with pytest.raises(InvalidInput, match="is a bert and learns labels"):
        train_adapter(encoder, verses(4), QUICK)
    with pytest.raises(InvalidInput, match="learns by a LoRA"):
        train_adapter(decoder, verses(4), dataclasses.replace(QUICK, kind=AdapterKind.BOTTLENECK))


@pytest.mark.parametrize(
    "records",
    [
        [{"prompt": "w1", "completion": "w2 w3"}] * 20,
        [{"text": f"w{n} w{n + 1} w{n + 2}", "label": "unread"} for n in range(20)],
        [
            {"messages": [{"role": "user", "content": f"w{n}"}, {"role": "assistant", "content": "w9"}]}
            for n in range(20)
        ],
    ],
)
def test_command_trains_a_decoder_from_every_form(records: list[dict[str, Any]], tmp_path: Path) -> None:
    base, out = base_of(tiny_llama, tmp_path), tmp_path / "adapter"
    data = tmp_path / "lines.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in records))
    arguments = ["train", str(data), "--base", str(base), "--out", str(out), "--epochs", "1", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["task"], report["config"]["kind"], report["config"]["rank"]) == ("language", "lora", 16)
    adapter = read_adapter(out, read_spec(base))
    assert adapter.head is None
    card = (out / "README.md").read_text()
    assert "text generation" in card
    assert "/v1/completions" in card


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "w1"}, "expected are"),
        ({"prompt": "w1", "completion": " "}, "completion is empty"),
        ({"prompt": 3, "completion": "w1"}, "prompt must be a string"),
        ({"messages": [{"role": "user", "content": "w1"}]}, "messages must end with one of the assistant"),
        ({"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "x"}]}, "content is empty"),
        ({"messages": [{"role": "king", "content": "x"}, {"role": "assistant", "content": "x"}]}, "role must be"),
    ],
)
def test_line_and_reason_are_named_when_a_record_is_wrong(record: dict[str, Any], reason: str, tmp_path: Path) -> None:
    base, data = base_of(tiny_gpt2, tmp_path), tmp_path / "lines.jsonl"
    data.write_text(json.dumps({"prompt": "w1", "completion": "w2"}) + "\n" + json.dumps(record) + "\n")
    result = CliRunner().invoke(app, ["train", str(data), "--base", str(base), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "lines.jsonl line 2" in " ".join(result.stderr.split())
    assert reason in " ".join(result.stderr.split())


def test_chat_is_refused_with_its_number_when_the_template_rejects_it(tmp_path: Path) -> None:
    source = tiny_decoder_folder(tiny_gpt2(), tmp_path / "source")
    (source / "chat_template.jinja").write_text("{{ messages[1].content }}{{ raise_exception('too long') }}")
    convert_pretrained(source, tmp_path / "base")
    said = [{"role": role, "content": "w1"} for role in ("user", "assistant")]
    data = tmp_path / "chats.jsonl"
    data.write_text(json.dumps({"prompt": "w1", "completion": "w2"}) + "\n" + json.dumps({"messages": said}) + "\n")
    arguments = ["train", str(data), "--base", str(tmp_path / "base"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "chats.jsonl line 2: the model's chat template refused" in " ".join(result.stderr.split())
    examples: list[AnyExample] = [*verses(1), ChatExample((("user", "w1"),), "w2")]
    with pytest.raises(InvalidInput, match="example 2: the model's chat template refused"):
        train_adapter(tmp_path / "base", examples, QUICK)
