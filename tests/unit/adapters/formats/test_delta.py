from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hmi.adapters.adapter import Activation, Adapter, AdapterKind, Lora
from hmi.adapters.canonical import FILE_NAME, save_adapter
from hmi.adapters.formats import read_adapter, read_delta
from hmi.errors import AdapterRefused
from hmi.spec import Site
from tests.apis import SPEC, adapter_file


def save(folder: Path, layer: int) -> Path:
    hidden = SPEC.hidden_size
    pair = Lora(a=np.ones((2, hidden), np.float32), b=np.ones((hidden, 2), np.float32))
    save_adapter(
        Adapter(AdapterKind.LORA, {(layer, Site.V): pair}, {}, True, Activation.IDENTITY, None), folder / FILE_NAME
    )
    return folder


def test_a_delta_is_what_an_adapter_must_not_be(tmp_path: Path) -> None:
    lower = save(tmp_path, layer=0)
    assert list(read_delta(lower, SPEC).lora) == [(0, Site.V)]
    with pytest.raises(AdapterRefused, match="lower layers"):
        read_adapter(lower, SPEC)


def test_a_delta_is_refused_when_it_reaches_above_the_lookup(tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match=r"lora\.1\.v.*lower layers 0\.\.0 only"):
        read_delta(save(tmp_path, layer=1), SPEC)


def test_a_delta_is_refused_when_it_has_a_head(tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match="without a head"):
        read_delta(adapter_file(tmp_path).parent, SPEC)


def test_a_delta_is_refused_when_weights_lie_beside_it(tmp_path: Path) -> None:
    (save(tmp_path, layer=0) / "more.safetensors").write_bytes(b"x")
    with pytest.raises(AdapterRefused, match="would not be applied"):
        read_delta(tmp_path, SPEC)
