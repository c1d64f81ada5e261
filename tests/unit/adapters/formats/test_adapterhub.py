"""Folders that AdapterHub's library itself writes, against what that library computes.

The whole model's answers are compared where the engine is tested; here it is what was read.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hmi.adapters import Activation, AdapterKind, Transform
from hmi.adapters.formats import read_adapter
from hmi.errors import AdapterRefused
from hmi.spec import Placement
from tests.adapter_samples import sample_spec
from tests.oracles.adapterhub import AdapterHubOracle, make_adapterhub_oracle

SPEC = sample_spec()


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> AdapterHubOracle:
    return make_adapterhub_oracle(tmp_path_factory.mktemp("adapterhub"))


def test_every_adapter_of_the_library_is_read_completely(oracle: AdapterHubOracle) -> None:
    for folder in oracle.adapters.values():
        adapter = read_adapter(folder, SPEC)
        values = sum(array.size for file in folder.glob("*.safetensors") for array in load_file(file).values())
        assert adapter.kind is AdapterKind.BOTTLENECK
        assert adapter.nbytes == 4 * values


def test_pfeiffer_and_houlsby_are_distinguished(oracle: AdapterHubOracle) -> None:
    pfeiffer, houlsby = (read_adapter(oracle.adapters[name], SPEC) for name in ("pfeiffer", "houlsby"))
    assert (pfeiffer.adapter_before_norm, pfeiffer.activation, pfeiffer.rank) == (True, Activation.RELU, 8)
    assert {place for _, place in pfeiffer.bottleneck} == {Placement.OUTPUT}
    assert (houlsby.adapter_before_norm, houlsby.activation, houlsby.rank) == (False, Activation.SWISH, 16)
    assert {place for _, place in houlsby.bottleneck} == set(Placement)


def test_left_out_layers_ranks_and_scaling_are_honoured(oracle: AdapterHubOracle) -> None:
    folder = oracle.adapters["upper"]
    adapter = read_adapter(folder, sample_spec(k=2))
    ranks = {layer: part.rank for (layer, _), part in adapter.bottleneck.items()}
    assert ranks == {2: 16, 3: 2}
    assert adapter.activation is Activation.GELU
    tensors = load_file(folder / "adapter.safetensors")
    module = "bert.encoder.layer.3.attention.output.adapters.upper"
    part = adapter.bottleneck[3, Placement.ATTENTION]
    np.testing.assert_array_equal(part.down, tensors[f"{module}.adapter_down.0.weight"])
    np.testing.assert_array_equal(part.up, tensors[f"{module}.adapter_up.weight"] * np.float32(0.5))
    np.testing.assert_array_equal(part.up_bias, tensors[f"{module}.adapter_up.bias"] * np.float32(0.5))


def test_heads_of_all_forms_are_read(oracle: AdapterHubOracle) -> None:
    heads = {name: read_adapter(folder, SPEC).head for name, folder in oracle.adapters.items()}
    found = {
        name: head and (head.transform, head.dense_activation, len(head.labels), head.multi_label)
        for name, head in heads.items()
    }
    assert found["pfeiffer"] == (Transform.DENSE, Activation.TANH, 2, False)
    assert found["houlsby"] == (Transform.POOLER, Activation.TANH, 3, False)
    assert found["upper"] == (Transform.NONE, Activation.TANH, 7, False)
    assert found["upper_houlsby"] == (Transform.POOLER_DENSE, Activation.RELU, 3, True)
    assert found["linear_head"] == (Transform.DENSE, Activation.IDENTITY, 7, False)
    assert found["headless"] is None
    assert heads["pfeiffer"] is not None
    assert heads["pfeiffer"].labels == ("bad", "good")


def test_adapter_on_all_layers_is_refused_when_the_lower_ones_are_looked_up(oracle: AdapterHubOracle) -> None:
    with pytest.raises(AdapterRefused, match=r"bottleneck\.0\.output: layer 0 is one of the 2 lower layers"):
        read_adapter(oracle.adapters["pfeiffer"], sample_spec(k=2))


def test_oracle_is_not_the_identity(oracle: AdapterHubOracle) -> None:
    """New adapters of the library are the identity, which would prove nothing."""
    hidden = [oracle.hidden[name] for name in sorted(oracle.hidden)]
    assert all(np.abs(left - right).max() > 0.1 for left, right in itertools.pairwise(hidden))


def test_folder_is_read_when_it_holds_a_readme(oracle: AdapterHubOracle, tmp_path: Path) -> None:
    for file in oracle.adapters["pfeiffer"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "README.md").write_text("# A model card")
    read_adapter(tmp_path, SPEC)
