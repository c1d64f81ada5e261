"""What `convert_pretrained` accepts and refuses, and what `load_hbert` refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hmi.errors import Corrupt, InvalidInput
from hmi.models.convert import convert_pretrained
from hmi.models.families import load_hbert, load_tokenizer
from hmi.spec import read_spec
from tests.tiny import tiny_bert_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bert_folder(tmp_path / "bert")


def _edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_converted_artifact_has_the_models_spec(folder: Path, tmp_path: Path) -> None:
    spec = convert_pretrained(folder, tmp_path / "out", k=2)
    assert spec == read_spec(tmp_path / "out")
    assert (spec.k, spec.layers, spec.hidden_size, spec.has_pooler) == (2, 4, 32, True)
    assert load_tokenizer(tmp_path / "out").encode("w0 w1").ids == [2, 5, 6, 3]


def test_a_tokenizer_does_not_cut_or_pad_when_its_file_says_so(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    convert_pretrained(folder, tmp_path / "out")
    assert len(load_tokenizer(tmp_path / "out").encode("w0 w1 w2 w3 w4").ids) == 7


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "roberta"}, "model_type 'roberta' is not supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"is_decoder": True}, "is_decoder"),
        ({"hidden_act": "maxout"}, "hidden_act 'maxout'"),
        ({"num_attention_heads": 5}, "not a multiple of 5 heads"),
    ],
)
def test_a_model_is_refused_with_the_reason_when_its_config_is_not_understood(
    folder: Path, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    _edit_config(folder, **changes)
    with pytest.raises(InvalidInput, match=reason):
        convert_pretrained(folder, tmp_path / "out")


def test_k_is_refused_when_no_upper_layer_remains(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"k must be in 0\.\.3, not 4"):
        convert_pretrained(folder, tmp_path / "out", k=4)


def test_a_pickle_is_refused_when_there_is_no_safetensors_file(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match="is a pickle, which can run code"):
        convert_pretrained(folder, tmp_path / "out")


def test_a_foreign_tensor_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"encoder.layer.0.magic.weight": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(InvalidInput, match=r"encoder\.layer\.0\.magic\.weight"):
        convert_pretrained(folder, tmp_path / "out")


@pytest.mark.parametrize("damage", ["missing", "surplus", "shape", "truncated", "spec"])
def test_a_damaged_artifact_is_refused_when_it_is_loaded(folder: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    convert_pretrained(folder, out, k=1)
    path = out / "model.safetensors"
    tensors = load_file(path)
    match damage:
        case "missing":
            del tensors["layers.3.fc1.bias"]
        case "surplus":
            tensors["layers.9.fc1.bias"] = torch.zeros(1)
        case "shape":
            tensors["window.position"] = torch.zeros(2, 32)
    save_file(tensors, path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    if damage == "spec":
        (out / "spec.json").write_text("{}")
    with pytest.raises(Corrupt):
        load_hbert(out)
