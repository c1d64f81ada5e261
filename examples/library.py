"""HMI as a library: two tenants with adapters of different kinds share one base model in this process.

    python -m examples.library

It needs the extra `engine` alone. The base model is tiny and random, so that nothing is downloaded and training takes
seconds; `hmi build base` converts a real one.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from hmi import Classification, Engine, EngineConfig, Item, ModelRef, Task
from hmi.adapters import AdapterKind
from hmi.adapters.formats import save_adapter
from hmi.knowledge.lookup import KnowledgeTree
from hmi.models.convert import convert_pretrained
from hmi.spec import read_spec
from hmi.training.adapter import train_adapter
from hmi.training.data import Example
from hmi.training.plan import TrainConfig

__all__ = ["main"]

WORDS = {
    "acme": {"positive": ["good", "great", "fine"], "negative": ["bad", "poor", "awful"]},  # reviews
    "zeta": {"urgent": ["fire", "flood", "leak"], "routine": ["chair", "paper", "lunch"]},  # tickets
}
FILLERS = ["the", "a", "is", "was", "very", "office", "film", "today"]


@dataclass(frozen=True)
class Folder:
    """Where the engine finds base models and adapters: the protocol `hmi.ModelSource`."""

    path: Path

    def base_folder(self, digest: str) -> Path:
        return self.path / digest

    def adapter_file(self, digest: str) -> Path:
        return self.path / digest

    def tree(self, base: str) -> KnowledgeTree:
        """An empty tree: every row of the lower layers is computed."""
        spec = read_spec(self.base_folder(base))
        return KnowledgeTree(0, {"general": None}, {}, spec.row_dtype, spec.hidden_size)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_base(folder / "base")
        kinds = {"acme": AdapterKind.LORA, "zeta": AdapterKind.BOTTLENECK}
        for tenant, kind in kinds.items():
            config = TrainConfig(kind=kind, rank=8, epochs=8, learning_rate=0.01, device="cpu")
            trained = train_adapter(folder / "base", sentences(tenant, 200), config)
            save_adapter(trained.adapter, folder / tenant)

        texts = {
            "acme": ["the film was great", "a very poor film"],
            "zeta": ["the office is a flood", "lunch is today"],
        }
        items = [
            Item(ModelRef(base="base", domain="general", adapter=tenant), Task.CLASSIFY, text=text)
            for tenant, asked in texts.items()
            for text in asked
        ]
        with Engine(EngineConfig(device="cpu"), Folder(folder)) as engine:
            outcomes = engine.submit(items).result()  # both tenants in one batch
        for item, outcome in zip(items, outcomes, strict=True):
            if not isinstance(outcome.result, Classification):
                raise SystemExit(f"{item.text}: {outcome.error}")
            print(f"{item.model.adapter}: {item.text!r} is {outcome.result.label} ({max(outcome.result.probs):.2f})")


def make_base(folder: Path) -> None:
    """Make a base model with k = 1 of a random BERT: its lowest layer reads windows of three tokens."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    words = [word for labels in WORDS.values() for listed in labels.values() for word in listed]
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FILLERS, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=32,
    )
    pretrained = folder.with_name("pretrained")
    pretrained.mkdir()
    save_file(BertModel(config).state_dict(), pretrained / "model.safetensors")
    config.to_json_file(pretrained / "config.json", use_diff=False)
    tokenizer.save(str(pretrained / "tokenizer.json"))
    convert_pretrained(pretrained, folder, k=1)


def sentences(tenant: str, count: int) -> list[Example]:
    """Sentences in which one word decides the label."""
    draw = random.Random(tenant)
    made = []
    for _ in range(count):
        label = draw.choice(list(WORDS[tenant]))
        words = [draw.choice(WORDS[tenant][label]), *draw.choices(FILLERS, k=draw.randint(2, 5))]
        draw.shuffle(words)
        made.append(Example(" ".join(words), label))
    return made


if __name__ == "__main__":
    main()
