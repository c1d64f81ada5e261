"""Bases and adapters are made once, and again when their origin changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from examples.data import Sentence
from examples.demo import models
from examples.demo.models import MadeAdapter, MadeBase, make_adapters, make_bases
from examples.demo.tenants import EXACT, QUICK, DemoTenant, Portion
from hmi.adapters.formats import load_adapter
from hmi.spec import read_spec
from tests.tiny import tiny_bert_folder

TEXT = tuple(Sentence(f"w{n % 2} w{10 + n} w{11 + n}", ("no", "yes")[n % 2]) for n in range(40))
SCALE = dataclasses.replace(
    QUICK,
    tenants=(DemoTenant("acme", "movies", "lora", 4), DemoTenant("zeta", "news", "bottleneck", 4, EXACT)),
)


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, MadeBase]:
    source = tiny_bert_folder(tmp_path / "source")
    monkeypatch.setattr(models, "find_pretrained", lambda: source)
    return dict(make_bases(tmp_path / "bases", TEXT, "cpu"))


def test_bases_are_kept_when_they_come_from_the_same(tmp_path: Path, bases: dict[str, MadeBase]) -> None:
    assert [(read_spec(each.folder).k, each.reused) for each in bases.values()] == [(3, False), (0, False)]
    assert bases["minilm-k3"].error is not None
    again = dict(make_bases(tmp_path / "bases", TEXT, "cpu"))
    assert all(each.reused for each in again.values())
    assert again["minilm-k3"].error == bases["minilm-k3"].error
    other = dict(make_bases(tmp_path / "bases", TEXT[:20], "cpu"))
    assert [each.reused for each in other.values()] == [False, True]  # k = 0 is not calibrated


def made(folder: Path, bases: dict[str, MadeBase], **sentences: tuple[Sentence, ...]) -> dict[str, MadeAdapter]:
    """Adapters of the tenants in `SCALE`, each from the sentences given under its name."""
    dealt = {name: Portion(text, ()) for name, text in sentences.items()}
    return {tenant.name: adapter for tenant, adapter in make_adapters(folder, SCALE, dealt, bases, "cpu")}


def test_adapter_is_trained_again_when_its_sentences_changed(tmp_path: Path, bases: dict[str, MadeBase]) -> None:
    first = made(tmp_path, bases, acme=TEXT, zeta=TEXT)
    assert [each.reused for each in first.values()] == [False, False]
    second = made(tmp_path, bases, acme=TEXT, zeta=TEXT[:30])
    assert (second["acme"].reused, second["zeta"].reused) == (True, False)
    adapter = load_adapter(second["zeta"].folder / "adapter.safetensors")
    assert adapter.head is not None
    assert adapter.head.labels == ("no", "yes")


def test_adapter_is_trained_again_when_the_last_training_was_cut_short(
    tmp_path: Path, bases: dict[str, MadeBase]
) -> None:
    made(tmp_path, bases, acme=TEXT, zeta=TEXT)
    (tmp_path / "acme" / "made.json").unlink()
    again = made(tmp_path, bases, acme=TEXT, zeta=TEXT)
    assert (again["acme"].reused, again["zeta"].reused) == (False, True)
