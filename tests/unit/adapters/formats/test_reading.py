from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hmi.adapters import Activation, Adapter, AdapterKind, Estimator, Lora
from hmi.adapters.formats import FILE_NAME, check_delta, read_adapter, read_delta, save_adapter
from hmi.errors import AdapterRefused
from hmi.spec import Site
from tests.apis import SPEC, adapter_file
from tests.estimators import random_estimator


def save(folder: Path, layer: int) -> Path:
    hidden = SPEC.hidden_size
    pair = Lora(a=np.ones((2, hidden), np.float32), b=np.ones((hidden, 2), np.float32))
    save_adapter(
        Adapter(AdapterKind.LORA, {(layer, Site.V): pair}, {}, True, Activation.IDENTITY, None), folder / FILE_NAME
    )
    return folder


def test_a_delta_is_not_an_adapter_and_an_adapter_is_not_a_delta(tmp_path: Path) -> None:
    lower = save(tmp_path, layer=0)
    assert list(read_delta(lower, SPEC).lora) == [(0, Site.V)]
    with pytest.raises(AdapterRefused, match="lower layers"):
        read_adapter(lower, SPEC)


def test_a_delta_is_refused_when_it_holds_upper_layers(tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match=r"lora\.1\.v.*lower layers 0\.\.0 only"):
        read_delta(save(tmp_path, layer=1), SPEC)


def with_estimator(folder: Path, estimator: Estimator) -> Path:
    delta = read_delta(save(folder, layer=0), SPEC)
    save_adapter(dataclasses.replace(delta, estimator=estimator), folder / FILE_NAME)
    return folder


def test_a_delta_may_have_an_estimator_of_its_rows(tmp_path: Path) -> None:
    hidden = SPEC.hidden_size
    delta = read_delta(with_estimator(tmp_path, random_estimator(hidden, seed=1).weights()), SPEC)
    assert delta.estimator is not None
    with pytest.raises(AdapterRefused, match="only a domain's delta has one"):
        dataclasses.replace(delta, lora={(1, Site.V): delta.lora[0, Site.V]}).validate(SPEC)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"error": np.array([1.5], np.float32)}, "estimator.error must lie between 0 and 1"),
        ({"error": np.array([-0.1], np.float32)}, "estimator.error must lie between 0 and 1"),
        ({"inner": np.zeros((9000, 3), np.float32)}, r"estimator.inner has shape \[9000, 3\], expected \[1..8192"),
        ({"outer_bias": np.full(32, np.nan, np.float32)}, "estimator.outer_bias"),
    ],
)
def test_a_delta_is_refused_when_its_estimator_is_invalid(
    changes: dict[str, NDArray[np.float32]], reason: str, tmp_path: Path
) -> None:
    delta = read_delta(save(tmp_path, layer=0), SPEC)
    estimator = dataclasses.replace(random_estimator(SPEC.hidden_size, seed=1).weights(), **changes)
    with pytest.raises(AdapterRefused, match=reason):
        check_delta(dataclasses.replace(delta, estimator=estimator), SPEC)


def test_a_delta_is_refused_when_its_estimator_is_of_another_width(tmp_path: Path) -> None:
    other = random_estimator(2 * SPEC.hidden_size, seed=1).weights()
    with pytest.raises(AdapterRefused, match=r"estimator\.inner has shape"):
        read_delta(with_estimator(tmp_path, other), SPEC)


def test_a_delta_is_refused_when_it_has_a_head(tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match="without a head"):
        read_delta(adapter_file(tmp_path).parent, SPEC)


def test_a_delta_is_refused_when_the_folder_holds_other_weights(tmp_path: Path) -> None:
    (save(tmp_path, layer=0) / "more.safetensors").write_bytes(b"x")
    with pytest.raises(AdapterRefused, match="would not be applied"):
        read_delta(tmp_path, SPEC)
