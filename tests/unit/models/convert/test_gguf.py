"""GGUF files that transformers would misread are refused."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from hmi.errors import InvalidInput
from hmi.models.convert.gguf import GgufFile


def write(path: Path, *, scaling: str | None, tensor: str = "token_embd.weight") -> GgufFile:
    writer = gguf.GGUFWriter(path, "llama")
    if scaling is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling))
    writer.add_tensor(tensor, np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile(path)


@pytest.mark.parametrize("scaling", ["linear", "yarn"])
def test_scaled_positions_are_refused(tmp_path: Path, scaling: str) -> None:
    with pytest.raises(InvalidInput, match=f"llama.rope.scaling.type is '{scaling}'"):
        write(tmp_path / "model.gguf", scaling=scaling)._check_positions()


def test_positions_scaled_by_a_tensor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="rope_freqs"):
        write(tmp_path / "model.gguf", scaling=None, tensor="rope_freqs.weight")._check_positions()


@pytest.mark.parametrize("scaling", [None, "none"])
def test_plain_positions_pass(tmp_path: Path, scaling: str | None) -> None:
    write(tmp_path / "model.gguf", scaling=scaling)._check_positions()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"PK\x03\x04")
    with pytest.raises(InvalidInput, match="is not a GGUF file"):
        GgufFile(tmp_path / "model.gguf")
