from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from hmi.spec import Family, HPLMSpec
from tests.apis import SPEC, Api, base_files


def as_parts(files: dict[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (name, data)) for name, data in files.items()]


def changed_spec(**changes: Any) -> dict[str, bytes]:
    spec = json.loads(SPEC.to_json()) | changes
    return base_files() | {"spec.json": json.dumps(spec).encode()}


def without_tensor(name: str) -> dict[str, bytes]:
    tensors = safetensors.numpy.load(base_files()["model.safetensors"])
    del tensors[name]
    return base_files() | {"model.safetensors": safetensors.numpy.save(tensors)}


def with_tensor(name: str, array: Any) -> dict[str, bytes]:
    tensors = safetensors.numpy.load(base_files()["model.safetensors"]) | {name: array}
    return base_files() | {"model.safetensors": safetensors.numpy.save(tensors)}


def test_a_base_model_is_kept_whole_and_its_name_is_for_ever(api: Api) -> None:
    with api.http() as http:
        first = http.post("/v1/hmi/bases", data={"name": "mini"}, files=as_parts(base_files())).json()
        again = http.post("/v1/hmi/bases", data={"name": "mini"}, files=as_parts(base_files())).json()
        other = base_files(dataclasses.replace(SPEC, k=0))
        assert http.post("/v1/hmi/bases", data={"name": "mini"}, files=as_parts(other)).status_code == 409
        assert {each["name"] for each in http.get("/v1/hmi/bases").json()["data"]} == {"tiny", "mini"}
    assert again == first
    assert first["spec"] == json.loads(SPEC.to_json())
    folder = api.services.artifacts.folder(first["artifact"], verify=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in base_files()} == base_files()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({name: data for name, data in base_files().items() if name != "spec.json"}, "a base model is spec.json"),
        (base_files() | {"pytorch_model.bin": b"x"}, "a base model is spec.json"),
        (base_files() | {"spec.json": b"{}"}, "spec.json: not an hPLM spec"),
        (base_files() | {"spec.json": b"\xff"}, "spec.json"),
        (base_files() | {"spec.json": b"[" * 5000}, "spec.json"),
        (changed_spec(hidden_size="8"), "spec.json"),
        (changed_spec(hidden_size=True), "spec.json"),
        (changed_spec(vocab_size=2**40), "spec.json"),
        (changed_spec(activation="a\u0000"), "spec.json"),
        (changed_spec(layers=3), "tensor layers.2"),
        (changed_spec(layers=2**31 - 1), "tensors for the 2147483647 layers"),
        (changed_spec(**{"\ud800": 1}), "spec.json"),
        (changed_spec(max_positions=13), "has shape"),
        (base_files() | {"tokenizer.json": b"{}"}, "tokenizer.json: not a tokenizer"),
        (changed_spec(vocab_size=20), "tokenizer.json: it knows 34 tokens"),
        (base_files() | {"model.safetensors": b""}, "not a safetensors file"),
        (base_files() | {"model.safetensors": b"\xff" * 64}, "not a safetensors file"),
        (base_files() | {"model.safetensors": (2).to_bytes(8, "little") + b"[]"}, "not a safetensors header"),
        (base_files() | {"model.safetensors": base_files()["model.safetensors"][:-4]}, "cut short"),
        (without_tensor("pooler.bias"), "pooler.bias is missing"),
        (with_tensor("extra", np.zeros(2, np.float32)), "extra is not known"),
        (with_tensor("pooler.bias", np.zeros(8, np.int64)), "has dtype I64"),
    ],
)
def test_a_base_model_is_refused_with_the_reason(api: Api, files: dict[str, bytes], reason: str) -> None:
    with api.http() as http:
        answer = http.post("/v1/hmi/bases", data={"name": "mini"}, files=as_parts(files))
        assert len(http.get("/v1/hmi/bases").json()["data"]) == 1
    assert answer.status_code == 400, answer.text
    assert reason in answer.json()["error"]["message"]
    assert not api.services.storage.names("artifacts")


def test_shapes_are_those_of_the_model() -> None:
    import torch

    from api.bases.shapes import expected_shapes
    from hmi.models.families import HBert, HGpt

    gpt2 = {"family": Family.GPT2, "type_vocab_size": 0, "has_pooler": False, "tied": True}
    llama = {"family": Family.LLAMA, "type_vocab_size": 0, "has_pooler": False, "kv_heads": 1, "rope_theta": 1e4}
    estimates = {"estimator_size": 7}
    encoders: list[dict[str, Any]] = [{}, {"k": 0}, {"has_pooler": False}, estimates]
    for changes in (*encoders, gpt2, gpt2 | {"k": 0, "tied": False}, llama, llama | {"k": 0}, llama | estimates):
        spec: HPLMSpec = dataclasses.replace(SPEC, **changes)
        with torch.device("meta"):
            model = HGpt(spec) if spec.family.decodes else HBert(spec)
        assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected_shapes(spec)
