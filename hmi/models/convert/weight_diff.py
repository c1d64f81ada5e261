"""A distilled hPLM as its difference from the pretrained weights: a few megabytes. Some ship with the package.

Matrices of the layers are kept in 4 bits with a float16 scale for each group of 64 values in a row, everything else
in float16. `python -m benchmarks.recipes` compares this with low-rank matrices of about the same size.

The file is a safetensors file; its metadata names the pretrained weights by digest and holds the hPLM's spec.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import hmi
from hmi.errors import Corrupt, InvalidInput
from hmi.models.convert.pretrained import pretrained_tensors
from hmi.spec import HPLMSpec

_SHIPPED = Path(hmi.__file__).parent / "differences"
_FORMAT = "hmi-difference/1"
_METADATA_KEY = "hmi_difference"
_GROUP = 64
_LARGEST_CODE = 7
_CODES, _SCALES, _WHOLE = ".codes", ".scales", ".whole"
_POSITIONS = "correction.position"


@dataclass(frozen=True, slots=True)
class WeightDiff:
    """What turns pretrained weights into those of an hPLM."""

    source: str  # Digest of the pretrained weights, see `weights_digest`
    spec: HPLMSpec  # Of the hPLM
    about: Mapping[str, Any]  # How it was made and what was measured, JSON-ready
    # One of three forms for each name:
    #   `<name>.codes` uint8 [out, in / 2], two values in a byte, and
    #       `<name>.scales` float16 [out, in / 64]; to be added
    #   `<name>` float16, to be added
    #   `<name>.whole` float16, the tensor itself; missing rows at the end are zero
    tensors: Mapping[str, Tensor]

    @classmethod
    def between(
        cls, original: Mapping[str, Tensor], changed: Mapping[str, Tensor], spec: HPLMSpec, about: Mapping[str, Any]
    ) -> WeightDiff:
        """Compute the rounded difference between two models' tensors, both under the artifact's names."""
        kept: dict[str, Tensor] = {}
        for name, tensor in changed.items():
            if name not in original:
                kept[name + _WHOLE] = _without_zero_tail(name, tensor.float()).half().contiguous()
                continue
            difference = tensor.float() - original[name].float()
            if not difference.any():
                continue
            if difference.dim() == 2 and not difference.shape[1] % _GROUP:
                kept[name + _CODES], kept[name + _SCALES] = _encode(difference)
            else:
                kept[name] = difference.half()
        return cls(weights_digest(original), spec, about, kept)

    def apply(self, original: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the hPLM's tensors, float32. Raises `InvalidInput` for other pretrained weights, and `Corrupt`."""
        if weights_digest(original) != self.source:
            raise InvalidInput("the difference was made for other pretrained weights than these")
        whole = {name: tensor.float().clone() for name, tensor in original.items()}
        try:
            for name, tensor in self.tensors.items():
                if name.endswith(_CODES):
                    plain = name.removesuffix(_CODES)
                    whole[plain] += _decode(tensor, self.tensors[plain + _SCALES])
                elif name.endswith(_WHOLE):
                    plain = name.removesuffix(_WHOLE)
                    whole[plain] = _with_zero_tail(plain, tensor.float(), self.spec)
                elif not name.endswith(_SCALES):
                    whole[name] += tensor.float()
        except (KeyError, RuntimeError) as error:
            raise Corrupt(f"the difference's tensors do not fit the weights: {error}") from error
        return whole

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def save(self, path: Path) -> None:
        """Write the file. Equal content gives equal bytes."""
        metadata = {"format": _FORMAT, "source": self.source, "spec": self.spec.to_json(), "about": self.about}
        temporary = path.with_name(f".{path.name}.tmp")
        # One entry, because safetensors writes several in random order.
        save_file(dict(sorted(self.tensors.items())), temporary, {_METADATA_KEY: json.dumps(metadata, sort_keys=True)})
        temporary.replace(path)


def read_weight_diff(path: Path) -> WeightDiff:
    """Raises `Corrupt` where the file is damaged or has another format."""
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})[_METADATA_KEY])
            if metadata["format"] != _FORMAT:
                raise Corrupt(f"{path.name} is not a difference of the format {_FORMAT}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return WeightDiff(metadata["source"], HPLMSpec.from_json(metadata["spec"]), metadata["about"], tensors)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise Corrupt(f"{path.name} cannot be read as a difference: {error}") from error


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, shapes and float32 values, independent of the file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].float().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def shipped_diff_path(name: str, k: int) -> Path:
    """Return the path of the shipped difference for the pretrained model `name` at `k`."""
    return _SHIPPED / f"{name}-k{k}.safetensors"


def find_shipped_diff(source: Path, k: int) -> WeightDiff | None:
    """Find the shipped difference for the weights in a transformers folder, by their digest. Raises `InvalidInput`."""
    found = [read_weight_diff(path) for path in sorted(_SHIPPED.glob(f"*-k{k}.safetensors"))]
    if not found:
        return None
    digest = weights_digest(pretrained_tensors(source))
    return next((each for each in found if each.source == digest), None)


def _encode(values: Tensor) -> tuple[Tensor, Tensor]:
    """[out, in] -> codes uint8 [out, in / 2], scales float16 [out, in / 64]."""
    grouped = values.view(len(values), -1, _GROUP)
    scales = (grouped.abs().amax(2) / _LARGEST_CODE).half()
    divisor = torch.where(scales > 0, scales.float(), torch.inf)[..., None]
    codes = (grouped / divisor).round().clamp(-_LARGEST_CODE, _LARGEST_CODE).to(torch.int8) + (_LARGEST_CODE + 1)
    pairs = codes.view(len(values), -1, 2).to(torch.uint8)
    return (pairs[..., 0] | pairs[..., 1] << 4).contiguous(), scales


def _decode(codes: Tensor, scales: Tensor) -> Tensor:
    pairs = torch.stack([codes & 0xF, codes >> 4], dim=-1).view(len(codes), -1, _GROUP)
    return ((pairs.float() - (_LARGEST_CODE + 1)) * scales.float()[..., None]).view(len(codes), -1)


def _without_zero_tail(name: str, tensor: Tensor) -> Tensor:
    """Cut the zero rows at the end of the position correction."""
    if name != _POSITIONS:
        return tensor
    used = tensor.any(1).nonzero()
    return tensor[: int(used[-1]) + 1 if len(used) else 0]


def _with_zero_tail(name: str, tensor: Tensor, spec: HPLMSpec) -> Tensor:
    missing = spec.max_positions - len(tensor)
    return torch.cat([tensor, tensor.new_zeros(missing, spec.hidden_size)]) if name == _POSITIONS else tensor
