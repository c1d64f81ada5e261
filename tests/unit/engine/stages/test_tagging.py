"""Words labelled by the engine as transformers with PEFT labels them, with any batch-mates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertForTokenClassification, PreTrainedTokenizerFast

from hmi.adapters import AdapterKind, Pooling
from hmi.adapters.formats import read_adapter, save_adapter
from hmi.engine import Engine
from hmi.errors import InvalidInput
from hmi.items import Classification, Item, ModelRef, Outcome, Tagging, Task
from hmi.models.convert import convert_pretrained
from hmi.spec import read_spec
from tests.engines import FolderSource, keep_batches, random_adapter, tiny_engine
from tests.tiny import tiny_bert_folder

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
PIECES = ["ada", "love", "##lace", "##s", "lon", "##don", "wrote", "in", ".", "'", "u", "k", "the", "é"]
TEXTS = [
    "Ada Lovelace wrote in London.",
    "the U.K.  wrote",
    "Lovelaces\tin\nLONDON's unknown",
    "ADA'é",
    "in " * 40 + "London",
]


def word_pieces() -> Tokenizer:
    """Words of several pieces, so that the first must speak for the others."""
    vocabulary = {piece: number for number, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *PIECES])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


@dataclass
class Site:
    engine: Engine
    model: torch.nn.Module
    tokenizer: Tokenizer


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A tagger made and saved by PEFT, `tagger`, beside adapters that classify whole texts, `other-0` ..."""
    root = tmp_path_factory.mktemp("tagging")
    folder = tiny_bert_folder(root / "bert")
    tokenizer = word_pieces()
    tokenizer.save(str(folder / "tokenizer.json"))
    convert_pretrained(folder, root / "base")
    torch.manual_seed(3)
    tagger = BertForTokenClassification.from_pretrained(folder, num_labels=len(LABELS))
    config = LoraConfig(task_type=TaskType.TOKEN_CLS, r=4, target_modules=["query", "value"])
    model = get_peft_model(tagger, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "classifier" in name:
                parameter.normal_(0, 0.2)
    model.save_pretrained(str(root / "peft"))
    source = FolderSource({"base": root / "base"})
    spec = read_spec(root / "base")
    adapters = {"tagger": read_adapter(root / "peft", spec, LABELS)}
    assert adapters["tagger"].head is not None
    assert adapters["tagger"].head.pooling is Pooling.TOKENS
    for number, kind in enumerate(AdapterKind):
        adapters[f"other-{number}"] = random_adapter(spec, kind, 4, 2 + number, seed=number)
    for name, adapter in adapters.items():
        source.adapters[name] = root / f"{name}.safetensors"
        save_adapter(adapter, source.adapters[name])
    with tiny_engine(source) as engine:
        yield Site(engine, model.eval(), tokenizer)


def item(text: str, adapter: str = "tagger", task: Task = Task.CLASSIFY, truncate_to: int | None = None) -> Item:
    return Item(ModelRef("base", "general", adapter), task, text=text, truncate_to=truncate_to)


def tagging(outcome: Outcome) -> Tagging:
    if outcome.error is not None:
        raise outcome.error
    assert isinstance(outcome.result, Tagging)
    return outcome.result


def expected(site: Site, text: str) -> list[tuple[int, int, str, float]]:
    """As transformers' own users do it: `word_ids()` of the fast tokenizer, the first piece of each word."""
    fast = PreTrainedTokenizerFast(tokenizer_object=site.tokenizer, unk_token="[UNK]", pad_token="[PAD]")  # type: ignore[no-untyped-call]
    encoded = fast(text, return_tensors="pt", return_offsets_mapping=True)
    with torch.no_grad():
        logits = site.model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits[0]
    probs = logits.softmax(-1)
    offsets = encoded["offset_mapping"][0].tolist()
    firsts: dict[int, int] = {}
    lasts: dict[int, int] = {}
    for place, word in enumerate(encoded.word_ids(0)):
        if word is not None:
            firsts.setdefault(word, place)
            lasts[word] = place
    return [
        (offsets[first][0], offsets[lasts[word]][1], LABELS[int(probs[first].argmax())], float(probs[first].max()))
        for word, first in firsts.items()
    ]


@pytest.mark.parametrize("text", TEXTS)
def test_words_are_labelled_as_transformers_labels_them(site: Site, text: str) -> None:
    (outcome,) = site.engine.submit([item(text)]).result(60)
    found = tagging(outcome)
    theirs = expected(site, text)
    assert found.labels == LABELS
    assert [(tag.start, tag.end, tag.label) for tag in found.tags] == [each[:3] for each in theirs]
    np.testing.assert_allclose([tag.score for tag in found.tags], [each[3] for each in theirs], atol=1e-5)
    assert outcome.tokens == len(site.tokenizer.encode(text).ids)


def test_words_stay_whole_when_they_have_several_pieces(site: Site) -> None:
    (outcome,) = site.engine.submit([item(TEXTS[0])]).result(60)
    words = [TEXTS[0][tag.start : tag.end] for tag in tagging(outcome).tags]
    assert words == ["Ada", "Lovelace", "wrote", "in", "London", "."]


def test_labels_do_not_change_when_others_are_in_the_batch(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [tagging(site.engine.submit([item(text)]).result(60)[0]) for text in TEXTS]
    beside = [
        item(f"{text[:30]} wrote", f"other-{number % 3}", Task.EMBED if number % 4 == 3 else Task.CLASSIFY)
        for number, text in enumerate(TEXTS * 4)
    ]
    batches = keep_batches(site.engine, monkeypatch)
    outcomes = site.engine.submit([*beside[:10], *map(item, TEXTS), *beside[10:]]).result(60)
    assert any(batch.staged.layout.token_heads and batch.staged.layout.heads and len(batch.pooled) for batch in batches)
    for one, outcome in zip(alone, outcomes[10:15], strict=True):
        together = tagging(outcome)
        assert [(tag.start, tag.end, tag.label) for tag in together.tags] == [
            (tag.start, tag.end, tag.label) for tag in one.tags
        ]
        np.testing.assert_allclose([tag.score for tag in together.tags], [tag.score for tag in one.tags], atol=1e-5)
    others = [*outcomes[:10], *outcomes[15:]]
    assert all(outcome.error is None for outcome in others)
    assert {type(outcome.result) for outcome in others} != {Tagging}
    assert sum(isinstance(outcome.result, Classification) for outcome in others) == 15


def test_words_that_were_read_are_labelled_when_the_text_is_cut(site: Site) -> None:
    text = "in the London Lovelaces"
    (outcome,) = site.engine.submit([item(text, truncate_to=6)]).result(60)
    # [CLS] in the lon ##don, and the last place is [SEP]'s
    assert [text[tag.start : tag.end] for tag in tagging(outcome).tags] == ["in", "the", "London"]
    (outcome,) = site.engine.submit([item(text, truncate_to=5)]).result(60)
    assert [text[tag.start : tag.end] for tag in tagging(outcome).tags] == ["in", "the", "London"]
    assert outcome.tokens == 5


def test_text_without_a_word_has_no_labels(site: Site) -> None:
    (outcome,) = site.engine.submit([item(" \t")]).result(60)
    assert tagging(outcome).tags == ()


def test_token_ids_are_refused_when_words_are_to_be_labelled(site: Site) -> None:
    ref = ModelRef("base", "general", "tagger")
    wrong, right = site.engine.submit([Item(ref, Task.CLASSIFY, tokens=(2, 4, 3)), item("Ada")]).result(60)
    assert isinstance(wrong.error, InvalidInput)
    assert wrong.error.param == "input"
    assert len(tagging(right).tags) == 1
