"""What a run makes is made once, and again only from something else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from examples.demo import QUICK, Sentence, find_pretrained, making
from examples.demo.making import MadeAdapter, MadeBase, make_adapters, make_bases
from examples.demo.tenants import EXACT_HOSTING, DemoTenant, Portion
from hmi.adapters.formats import load_adapter
from hmi.errors import HmiError
from hmi.models.families import load_spec
from tests.tiny import tiny_bert_folder

TEXT = tuple(Sentence(f"w{n % 2} w{10 + n} w{11 + n}", ("no", "yes")[n % 2]) for n in range(40))
CAST = dataclasses.replace(
    QUICK,
    tenants=(DemoTenant("acme", "movies", "lora", 4), DemoTenant("zeta", "news", "bottleneck", 4, EXACT_HOSTING)),
)


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, MadeBase]:
    source = tiny_bert_folder(tmp_path / "source")
    monkeypatch.setattr(making, "find_pretrained", lambda: source)
    return make_bases(tmp_path / "bases", TEXT, "cpu")


def test_bases_are_kept_when_they_come_from_the_same(tmp_path: Path, bases: dict[str, MadeBase]) -> None:
    assert [(load_spec(each.folder).k, each.reused) for each in bases.values()] == [(3, False), (0, False)]
    assert bases["minilm-k3"].error is not None
    again = make_bases(tmp_path / "bases", TEXT, "cpu")
    assert all(each.reused for each in again.values())
    assert again["minilm-k3"].error == bases["minilm-k3"].error
    other = make_bases(tmp_path / "bases", TEXT[:20], "cpu")
    assert [each.reused for each in other.values()] == [False, True]  # k = 0 is not calibrated


def made(folder: Path, bases: dict[str, MadeBase], **sentences: tuple[Sentence, ...]) -> dict[str, MadeAdapter]:
    """Adapters of the tenants in `CAST`, each from the sentences given under its name."""
    dealt = {name: Portion(text, ()) for name, text in sentences.items()}
    return {tenant.name: adapter for tenant, adapter in make_adapters(folder, CAST, dealt, bases, "cpu")}


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


def test_pretrained_folder_is_found_when_its_package_is_installed() -> None:
    assert (find_pretrained() / "config.json").exists()


def test_extra_is_named_when_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "_PRETRAINED", "no_such_package_at_all")
    with pytest.raises(HmiError, match=r"hmi\[demo\]"):
        find_pretrained()
