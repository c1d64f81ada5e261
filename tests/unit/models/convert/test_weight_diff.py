"""A weight difference is small, close to the original, and bound to its pretrained weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hmi.errors import Corrupt
from hmi.models.convert import WeightDiff, read_weight_diff, weights_digest
from hmi.spec import Family, HPLMSpec

SPEC = HPLMSpec(Family.BERT, 100, 64, 4, 4, 128, 48, 2, 1e-12, "gelu", 0, k=2, distilled=True)


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {"layers.0.q.weight": drawn(64, 64), "layers.0.fc1.weight": drawn(128, 64), "layers.0.q.bias": drawn(64)}


def changed(original: dict[str, Tensor]) -> dict[str, Tensor]:
    small = {
        name: tensor + 0.01 * other for (name, tensor), other in zip(original.items(), tensors(2).values(), strict=True)
    }
    corrections = torch.zeros(48, 64)
    corrections[:5] = 1.5
    return {**small, "correction.position": corrections, "window.projection.bias": torch.zeros(64)}


def test_tensors_come_back_within_the_codes_rounding() -> None:
    original = tensors(1)
    wanted = changed(original)
    difference = WeightDiff.between(original, wanted, SPEC, {})
    found = difference.apply(original)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        moved = (tensor - original[name]).norm() if name in original else tensor.norm()
        assert (found[name] - tensor).norm() <= 0.12 * moved, name
    assert torch.equal(found["correction.position"], wanted["correction.position"])


def test_a_matrix_takes_four_bits_for_each_value() -> None:
    original = tensors(1)
    difference = WeightDiff.between(
        original, {**changed(original), "correction.position": torch.zeros(48, 64)}, SPEC, {}
    )
    values = 64 * 64 + 128 * 64
    assert difference.nbytes == values // 2 + values // 64 * 2 + 64 * 2 + 64 * 2


def test_unchanged_tensors_are_not_kept() -> None:
    original = tensors(1)
    assert not WeightDiff.between(original, dict(original), SPEC, {}).tensors


def test_file_is_the_same_when_it_is_read_back(tmp_path: Path) -> None:
    original = tensors(1)
    difference = WeightDiff.between(original, changed(original), SPEC, {"steps": 3})
    difference.save(tmp_path / "one.safetensors")
    difference.save(tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    found = read_weight_diff(tmp_path / "one.safetensors")
    assert (found.source, found.spec, found.about) == (difference.source, SPEC, {"steps": 3})
    again, once = found.apply(original), difference.apply(original)
    assert all(torch.equal(again[name], once[name]) for name in once)


def test_digest_depends_on_values_and_names_alone() -> None:
    one = tensors(1)
    assert weights_digest(one) == weights_digest(dict(reversed(one.items())))
    assert weights_digest(one) != weights_digest({**one, "layers.0.q.bias": one["layers.0.q.bias"] + 1e-3})
    assert weights_digest(one) != weights_digest({f"x{name}": tensor for name, tensor in one.items()})


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_file_is_refused_when_it_is_not_a_difference(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "difference.safetensors"
    path.write_bytes(content)
    with pytest.raises(Corrupt, match="difference"):
        read_weight_diff(path)


def test_difference_is_refused_when_its_tensors_do_not_fit(tmp_path: Path) -> None:
    original = tensors(1)
    difference = WeightDiff.between(original, changed(original), SPEC, {})
    wrong = {**difference.tensors, "layers.7.q.bias": torch.zeros(64).half()}
    with pytest.raises(Corrupt, match="do not fit"):
        WeightDiff(difference.source, SPEC, {}, wrong).apply(original)
