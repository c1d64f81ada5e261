"""What makes the shipped difference, on a tiny model: the same file again, and the base that it stands for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import minilm
from hmi.models.convert import read_weight_diff
from hmi.spec import RowDtype
from hmi.training.distill import apply_weight_diff
from tests.tiny import TINY_WORDS, tiny_bert_folder


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = tiny_bert_folder(tmp_path / "source")
    lines = [" ".join(TINY_WORDS[start : start + 5]) for start in range(60)]
    monkeypatch.setattr(minilm, "find_pretrained", lambda: source)
    monkeypatch.setattr(minilm, "corpora", lambda cache: [lines, lines[::-1]])
    return source


def test_difference_is_the_same_when_it_is_made_again_and_gives_the_base(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    made = []
    for name in ("first", "second"):
        out, folder = tmp_path / f"{name}.safetensors", tmp_path / name
        options = ["--k", "2", "--steps", "2", "--out", str(out), "--folder", str(folder), "--json"]
        minilm.main([*options, "--threads", "1", "--estimator-steps", "3"])
        report = json.loads(capsys.readouterr().out)
        assert len(report["after"]["layers"]) == 1 + 2  # after the lookup, and after each upper layer
        made.append(out.read_bytes())
    torch.set_num_threads(threads)
    assert made[0] == made[1]
    again = tmp_path / "again"
    apply_weight_diff(source, read_weight_diff(tmp_path / "first.safetensors"), again, RowDtype.INT8)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "first", again))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
