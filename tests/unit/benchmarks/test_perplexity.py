"""The benchmark of decoders' perplexity on a tiny model: its paragraphs, its report, and its trees."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
import torch

from benchmarks.perplexity.__main__ import RECIPE, _claim, _learn, paragraphs
from benchmarks.perplexity.speed import Speed, measure_speed
from hmi.engine import EngineConfig
from hmi.models.convert import convert_pretrained
from tests.tiny import TINY_WORDS, tiny_decoder_folder, tiny_llama


def test_paragraphs_hold_every_text_once_and_end_at_a_hundred_words() -> None:
    texts = [" ".join([f"w{number}"] * (number % 40 + 1)) for number in range(50)]
    found = list(paragraphs(texts))
    assert " ".join(found) == " ".join(texts)
    assert all(len(each.split()) >= 100 for each in found[:-1])
    assert all(len(each.split()) < 140 for each in found)
    assert list(paragraphs([])) == []


def test_what_was_learnt_is_reported_and_not_learnt_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny_decoder_folder(tiny_llama(), tmp_path / "source")
    corpora = [[" ".join(TINY_WORDS[(start + n) % 30] for n in range(8)) for start in range(60)]]
    config = dataclasses.replace(RECIPE, steps=3, batch_size=4, dtype="float32")
    found = _learn(source, tmp_path / "k2", 2, corpora, config)
    assert found["original"] > 1
    assert found["above_original"] == pytest.approx(found["distilled"] / found["original"] - 1, abs=1e-3)
    assert set(found["divergence"]) == set(found["agreement"]) == {"converted", "fitted", "distilled"}
    monkeypatch.setattr("benchmarks.perplexity.__main__.build_base", None)
    assert _learn(source, tmp_path / "k2", 2, corpora, config) == found


def test_folder_that_another_plan_filled_is_refused(tmp_path: Path) -> None:
    _claim(tmp_path, RECIPE, [["text"]])
    (tmp_path / "k2.json").write_text("{}")
    _claim(tmp_path, RECIPE, [["text"]])
    for config, corpora in ((dataclasses.replace(RECIPE, steps=3), [["text"]]), (RECIPE, [["other text"]])):
        with pytest.raises(SystemExit, match="another plan"):
            _claim(tmp_path, config, corpora)
    (tmp_path / "plan.txt").unlink()
    with pytest.raises(SystemExit, match="another plan"):
        _claim(tmp_path, RECIPE, [["text"]])


def test_rows_are_all_computed_in_one_and_all_held_in_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = functools.partial(EngineConfig, device_adapter_bytes=2**22, cache_bytes=2**22)
    monkeypatch.setattr("benchmarks.perplexity.speed.EngineConfig", small)
    source = tiny_decoder_folder(tiny_llama(), tmp_path / "source")
    for k in (0, 2):
        convert_pretrained(source, tmp_path / f"k{k}", k=k)
    prompts = [" ".join(TINY_WORDS[start + n] for n in range(6)) for start in range(5)]
    plan = Speed(sequences=3, read=4, made=3, rounds=1)
    found = measure_speed(tmp_path / "k0", {2: tmp_path / "k2"}, prompts, plan, torch.device("cpu"))
    assert {how: each["hit_rate"] for how, each in found[2].items()} == {"computed": 0.0, "held": 1.0}
    assert all(each["tokens_s"] > 0 and each["ratio"] > 0 for each in found[2].values())
