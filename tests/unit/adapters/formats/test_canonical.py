from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from hmi.adapters import Activation, Adapter, Head, Pooling, Transform
from hmi.adapters.formats import load_adapter, save_adapter
from hmi.errors import AdapterRefused
from hmi.spec import Placement, Site
from tests.adapter_samples import bottleneck_adapter, head, head_adapter, lora_adapter
from tests.estimators import random_estimator

RNG = np.random.default_rng(1)


def _assert_equal(left: Adapter, right: Adapter) -> None:
    assert left.summary() == right.summary()
    assert (left.adapter_before_norm, left.activation) == (right.adapter_before_norm, right.activation)
    assert left.tensors().keys() == right.tensors().keys()
    for name, array in left.tensors().items():
        np.testing.assert_array_equal(array, right.tensors()[name])


@st.composite
def heads(draw: st.DrawFn) -> Head | None:
    if draw(st.booleans()):
        return None
    transform, own = draw(
        st.sampled_from(
            [(Transform.NONE, False), (Transform.POOLER, False), (Transform.POOLER, True), (Transform.DENSE, True)]
        )
    )
    return head(
        np.random.default_rng(draw(st.integers(0, 9))),
        draw(st.integers(2, 9)),
        pooling=Pooling.CLS,
        transform=transform,
        activation=draw(st.sampled_from(Activation)),
        own_dense=own,
        multi_label=draw(st.booleans()),
    )


@st.composite
def adapters(draw: st.DrawFn) -> Adapter:
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    rank = draw(st.integers(1, 5))
    if draw(st.booleans()):
        sites = draw(st.lists(st.sampled_from(Site), min_size=1, unique=True))
        return lora_adapter(rng, rank, sites=sites, head=draw(heads()))
    return bottleneck_adapter(
        rng,
        rank,
        places=draw(st.lists(st.sampled_from(Placement), min_size=1, unique=True)),
        before_norm=draw(st.booleans()),
        activation=draw(st.sampled_from(Activation)),
        head=draw(heads()),
    )


@settings(max_examples=30, deadline=None)
@given(adapter=adapters())
def test_adapter_is_the_same_when_saved_and_loaded(adapter: Adapter, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(adapter, folder / "a")
    save_adapter(adapter, folder / "b")
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()
    _assert_equal(adapter, load_adapter(folder / "a"))


def test_a_deltas_estimator_is_the_same_when_saved_and_loaded(tmp_path: Path) -> None:
    delta = dataclasses.replace(lora_adapter(RNG), estimator=random_estimator(32, seed=1, size=5).weights())
    save_adapter(delta, tmp_path / "a")
    again = load_adapter(tmp_path / "a")
    _assert_equal(delta, again)
    assert again.estimator is not None
    assert again.nbytes == delta.nbytes > lora_adapter(RNG).nbytes
    assert again.summary()["estimator"] == 5


@pytest.mark.parametrize("lost", ["inner_bias", "outer", "outer_bias", "linear", "error"])
def test_an_estimator_is_refused_when_a_part_is_lost(lost: str, tmp_path: Path) -> None:
    delta = dataclasses.replace(lora_adapter(RNG), estimator=random_estimator(32, seed=1).weights())
    save_adapter(delta, tmp_path / "a")
    with safe_open(tmp_path / "a", "np") as file:
        config = json.loads(file.metadata()["hmi"])
        arrays = {name: file.get_tensor(name) for name in file.keys() if name != f"estimator.{lost}"}  # noqa: SIM118
    config["tensors"] = sorted(arrays)
    save_file(arrays, tmp_path / "a", metadata={"hmi": json.dumps(config)})
    with pytest.raises(AdapterRefused, match=f"estimator.{lost} is missing"):
        load_adapter(tmp_path / "a")


def _drop_tensor(arrays: dict[str, Any], config: dict[str, Any]) -> None:
    del arrays["lora.2.q.b"]


def _drop_tensor_and_its_mention(arrays: dict[str, Any], config: dict[str, Any]) -> None:
    del arrays["lora.2.q.b"]
    config["tensors"].remove("lora.2.q.b")


def _add_tensor(arrays: dict[str, Any], config: dict[str, Any]) -> None:
    arrays["extra"] = np.zeros(3, np.float32)
    config["tensors"] = sorted(arrays)


def _unknown_site(arrays: dict[str, Any], config: dict[str, Any]) -> None:
    arrays["lora.2.gate.a"] = np.zeros((4, 32), np.float32)
    config["tensors"] = sorted(arrays)


def _poison(arrays: dict[str, Any], config: dict[str, Any]) -> None:
    arrays["lora.2.q.a"] = np.full((4, 32), np.inf, np.float32)


def _set(field: str, value: object) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(arrays: dict[str, Any], config: dict[str, Any]) -> None:
        config[field] = value

    return change


def _set_head(field: str, value: object) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(arrays: dict[str, Any], config: dict[str, Any]) -> None:
        config["head"][field] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_drop_tensor, "disagree about lora.2.q.b"),
        (_drop_tensor_and_its_mention, "lora.2.q.b is missing"),
        (_add_tensor, "would not be applied: extra"),
        (_unknown_site, "gate"),
        (_poison, "lora.2.q.a holds NaN or infinite"),
        (_set("format", 2), "format 2 is unknown"),
        (_set("kind", "prefix"), "prefix"),
        (_set("adapter_before_norm", 1), "neither true nor false"),
        (_set("activation", "mish"), "mish"),
        (_set("dropout", 0.1), "dropout"),
        (_set("head", None), "would not be applied: head.out"),
        (_set("head", []), "not understood"),
        (_set_head("labels", ["a", "b"]), r"head.out has shape \[3, 32\]"),
        (_set_head("labels", "abc"), "not a list of names"),
        (_set_head("pooling", "max"), "max"),
        (_set_head("temperature", 2), "temperature"),
    ],
)
def test_file_is_refused_with_the_reason_when_changed(
    change: Callable[[dict[str, Any], dict[str, Any]], None], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "adapter.safetensors"
    save_adapter(lora_adapter(RNG, head=head(RNG, 3)), path)
    with safe_open(path, "np") as file:
        config = json.loads(file.metadata()["hmi"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    change(arrays, config)
    save_file(arrays, path, metadata={"hmi": json.dumps(config)})
    with pytest.raises(AdapterRefused, match=reason):
        load_adapter(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"hmi": "{"}, {"hmi": "[" * 100_000}, {"hmi": "7"}])
def test_file_is_refused_when_its_metadata_is_not_an_adapters(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    save_file({"head.out": np.zeros((2, 4), np.float32)}, tmp_path / "x.safetensors", metadata=metadata)
    with pytest.raises(AdapterRefused, match="hmi"):
        load_adapter(tmp_path / "x.safetensors")


@given(cut=st.integers(0, 2000))
@settings(max_examples=40, deadline=None)
def test_file_is_refused_when_cut_short(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("cut") / "adapter.safetensors"
    save_adapter(head_adapter(head(RNG, 2)), path)
    content = path.read_bytes()
    path.write_bytes(content[: min(cut, len(content) - 1)])
    with pytest.raises(AdapterRefused, match=r"adapter\.safetensors is not a whole safetensors file"):
        load_adapter(path)


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    adapter = head_adapter(head(RNG, 2))
    path = tmp_path / "adapter.safetensors"
    save_adapter(adapter, path)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    halves = {name: array.astype(np.float16) for name, array in adapter.tensors().items()}
    save_file(halves, path, metadata=metadata)
    for name, array in load_adapter(path).tensors().items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, halves[name].astype(np.float32))
