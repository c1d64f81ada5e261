"""A distilled hPLM as what it differs by from the pretrained model: a few megabytes beside the original's weights.

Matrices of the layers are kept in 4 bits with a float16 scale for each group of 64 values in a row, everything else
in float16. `python -m benchmarks.recipes` sets it beside matrices of low rank of about the same bytes.

The file is a safetensors file; its metadata says which weights it belongs to, and which hPLM comes of them.
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

from hmi.errors import Corrupt, InvalidInput
from hmi.spec import HPLMSpec

__all__ = ["WeightDiff", "read_weight_diff", "weights_digest"]

_FORMAT = "hmi-difference/1"
_METADATA_KEY = "hmi_difference"
_GROUP = 64
_LARGEST_CODE = 7
_CODES, _SCALES, _WHOLE = ".codes", ".scales", ".whole"
_POSITIONS = "correction.position"


@dataclass(frozen=True, slots=True)
class WeightDiff:
    """
    Attributes:
        source: Digest of the pretrained weights, see `weights_digest`.
        spec: Of the hPLM.
        about: How it was made and what was measured, JSON-ready.
        tensors: As in the file: `<name>.codes` uint8 `[out, in / 2]`, two values in a byte, with `<name>.scales`
            float16 `[out, in / 64]`; `<name>` float16, to be added; `<name>.whole` float16, the tensor itself,
            of which missing rows at the end are zero.
    """

    source: str
    spec: HPLMSpec
    about: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @classmethod
    def between(
        cls,
        original: Mapping[str, Tensor],
        changed: Mapping[str, Tensor],
        spec: HPLMSpec,
        about: Mapping[str, Any],
    ) -> WeightDiff:
        """What leads from a pretrained model's tensors (under the artifact's names) to an hPLM's, rounded."""
        kept: dict[str, Tensor] = {}
        for name, tensor in changed.items():
            if name not in original:
                kept[name + _WHOLE] = _shortened(name, tensor.float()).half().contiguous()
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
        """The hPLM's tensors, float32. Raises `InvalidInput` where it was made for other weights, `Corrupt`."""
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
                    whole[plain] = _lengthened(plain, tensor.float(), self.spec)
                elif not name.endswith(_SCALES):
                    whole[name] += tensor.float()
        except (KeyError, RuntimeError) as error:
            raise Corrupt(f"the difference's tensors do not fit the weights: {error}") from error
        return whole

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def save(self, path: Path) -> None:
        """Write the file; the same content gives the same bytes."""
        said = {"format": _FORMAT, "source": self.source, "spec": self.spec.to_json(), "about": self.about}
        beside = path.with_name(f".{path.name}.tmp")
        # One entry: safetensors writes several in an order of chance.
        save_file(dict(sorted(self.tensors.items())), beside, {_METADATA_KEY: json.dumps(said, sort_keys=True)})
        beside.replace(path)


def read_weight_diff(path: Path) -> WeightDiff:
    """Raises `Corrupt` where the file is no difference that this version understands."""
    try:
        with safe_open(path, "pt") as file:
            said = json.loads((file.metadata() or {})[_METADATA_KEY])
            if said["format"] != _FORMAT:
                raise Corrupt(f"{path.name} is not a difference of the format {_FORMAT}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return WeightDiff(said["source"], HPLMSpec.from_json(said["spec"]), said["about"], tensors)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise Corrupt(f"{path.name} cannot be read as a difference: {error}") from error


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values, whatever file they came from."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].float().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


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


def _shortened(name: str, tensor: Tensor) -> Tensor:
    """Corrections without those of the last positions where there are none."""
    if name != _POSITIONS:
        return tensor
    used = tensor.any(1).nonzero()
    return tensor[: int(used[-1]) + 1 if len(used) else 0]


def _lengthened(name: str, tensor: Tensor, spec: HPLMSpec) -> Tensor:
    missing = spec.max_positions - len(tensor)
    return torch.cat([tensor, tensor.new_zeros(missing, spec.hidden_size)]) if name == _POSITIONS else tensor
