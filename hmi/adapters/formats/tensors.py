"""Tensors out of safetensors files from strangers: bounded, finite, float32, and every one accounted for."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from hmi.adapters import Array
from hmi.errors import AdapterRefused

__all__ = ["MAX_BYTES", "MAX_HEADER_BYTES", "TensorClaims", "TensorFile", "read_tensors", "scale"]

MAX_BYTES = 512 * 1024**2
MAX_HEADER_BYTES = 4 * 1024**2  # about 20,000 tensors; the file format itself would allow 100 MB
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


@dataclass(frozen=True, slots=True)
class TensorFile:
    """What a safetensors file holds: arrays as float32 by name, and its metadata."""

    name: str
    tensors: Mapping[str, Array]
    metadata: Mapping[str, str]


def read_tensors(path: Path, *, max_bytes: int = MAX_BYTES) -> TensorFile:
    """Read float32, float16 or bfloat16 tensors, all of them as float32.

    Raises `AdapterRefused`, naming file and tensor, for a file that is too large, is damaged, holds
    another dtype or a value that is not finite.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise AdapterRefused(f"{path.name} has {size} bytes, more than the {max_bytes} allowed")
    content = path.read_bytes()
    metadata = _read_metadata(path.name, content)
    try:
        entries: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except Exception as error:  # the library has a class of its own, but raises plain ones for some input
        raise AdapterRefused(f"{path.name} is not a whole safetensors file: {error}") from error
    return TensorFile(path.name, {name: _to_array(path.name, name, entry) for name, entry in entries}, metadata)


def _read_metadata(file: str, content: bytes) -> dict[str, str]:
    """The header's metadata, after the checks that the library leaves out: a small header and no name twice."""
    if len(content) < 8:
        raise AdapterRefused(f"{file} is not a whole safetensors file: it has {len(content)} bytes")
    (length,) = struct.unpack("<Q", content[:8])
    if length > MAX_HEADER_BYTES:
        raise AdapterRefused(f"{file} declares a header of {length} bytes, more than the {MAX_HEADER_BYTES} allowed")
    try:
        header = json.loads(content[8 : 8 + length].decode(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise AdapterRefused(f"{file} is not a whole safetensors file: {error}") from error
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AdapterRefused(f"{file} is not a whole safetensors file: its metadata is not text by name")
    return metadata


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _to_array(file: str, name: str, entry: dict[str, Any]) -> Array:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise AdapterRefused(f"{file}: {name} is {entry['dtype']}; float32, float16 and bfloat16 are understood")
    raw: NDArray[Any] = np.frombuffer(bytes(entry["data"]), dtype=dtype).reshape(entry["shape"])
    if entry["dtype"] == "BF16":
        # bfloat16 is the upper half of a float32.
        raw = (raw.astype(np.uint32) << 16).view(np.float32)
    array: Array = np.array(raw, np.float32)  # a copy: the file's bytes are not kept alive by one small tensor
    if not np.isfinite(array).all():
        raise AdapterRefused(f"{file}: {name} holds NaN or infinite values")
    return array


def scale(array: Array, factor: float) -> Array:
    """The array times a factor. What overflows becomes infinite, quietly: validation names it."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: Array = array * np.float32(factor)
    return scaled


class TensorClaims:
    """Hands out tensors by name and remembers which: what nobody asked for is refused at the end."""

    def __init__(self, file: TensorFile) -> None:
        self.file = file.name
        self._tensors = dict(file.tensors)

    @property
    def unclaimed(self) -> tuple[str, ...]:
        return tuple(sorted(self._tensors))

    def take(self, name: str, shape: tuple[int | None, ...]) -> Array:
        """The tensor, which must have `shape` (None: any size of at least 1). Raises `AdapterRefused`."""
        array = self._tensors.pop(name, None)
        if array is None:
            raise AdapterRefused(f"{self.file}: {name} is missing")
        fits = array.ndim == len(shape) and all(
            found >= 1 if wanted is None else found == wanted for found, wanted in zip(array.shape, shape, strict=True)
        )
        if not fits:
            expected = ", ".join("any" if size is None else str(size) for size in shape)
            raise AdapterRefused(f"{self.file}: {name} has shape {list(array.shape)}, expected [{expected}]")
        return array

    def finish(self) -> None:
        """Raises `AdapterRefused` naming tensors that would not be applied."""
        if self._tensors:
            shown = ", ".join(self.unclaimed[:5])
            more = f" and {len(self._tensors) - 5} more" if len(self._tensors) > 5 else ""
            raise AdapterRefused(f"{self.file} holds tensors that would not be applied: {shown}{more}")
