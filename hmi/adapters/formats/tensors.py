"""Tensors from uploaded safetensors files: bounded, finite, float32, and each one must be used."""

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

MAX_BYTES = 512 * 1024**2
MAX_HEADER_BYTES = 4 * 1024**2  # about 20,000 tensors; the file format itself would allow 100 MB
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


@dataclass(frozen=True, slots=True)
class TensorFile:
    """The content of a safetensors file: float32 arrays by name, and its metadata."""

    name: str
    tensors: Mapping[str, Array]
    metadata: Mapping[str, str]


def read_tensors(path: Path, *, max_bytes: int = MAX_BYTES) -> TensorFile:
    """Read float32, float16 or bfloat16 tensors as float32.

    Raises `AdapterRefused` for a file that is too large or damaged, another dtype, or a value that is not finite.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise AdapterRefused(f"{path.name} has {size} bytes, more than the {max_bytes} allowed")
    content = path.read_bytes()
    metadata = _read_metadata(path.name, content)
    try:
        entries: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except Exception as error:  # the library also raises other classes than its own
        raise AdapterRefused(f"{path.name} is not a whole safetensors file: {error}") from error
    return TensorFile(path.name, {name: _to_array(path.name, name, entry) for name, entry in entries}, metadata)


def _read_metadata(file: str, content: bytes) -> dict[str, str]:
    """Return the header's metadata, after the checks that the library lacks: a small header, no duplicate names."""
    if len(content) < 8:
        raise AdapterRefused(f"{file} is not a whole safetensors file: it has {len(content)} bytes")
    (length,) = struct.unpack("<Q", content[:8])
    if length > MAX_HEADER_BYTES:
        raise AdapterRefused(f"{file} declares a header of {length} bytes, more than the {MAX_HEADER_BYTES} allowed")
    try:
        header = json.loads(content[8 : 8 + length].decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise AdapterRefused(f"{file} is not a whole safetensors file: {error}") from error
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AdapterRefused(f"{file} is not a whole safetensors file: its metadata is not text by name")
    return metadata


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
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
    array: Array = np.array(raw, np.float32)  # a copy, so that a small tensor does not keep the whole file in memory
    if not np.isfinite(array).all():
        raise AdapterRefused(f"{file}: {name} holds NaN or infinite values")
    return array


def scale(array: Array, factor: float) -> Array:
    """Multiply by a factor. An overflow gives infinity without a warning, and validation refuses it."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: Array = array * np.float32(factor)
    return scaled


class TensorReader:
    """Takes tensors by name. `finish` refuses the remaining ones."""

    def __init__(self, file: TensorFile) -> None:
        self.file = file.name
        self._tensors = dict(file.tensors)

    @property
    def remaining(self) -> tuple[str, ...]:
        return tuple(sorted(self._tensors))

    def take(self, name: str, shape: tuple[int | None, ...]) -> Array:
        """Return the tensor, which must have `shape` (None: any size of at least 1). Raises `AdapterRefused`."""
        array = self._tensors.pop(name, None)
        if array is None:
            raise AdapterRefused(f"{self.file}: {name} is missing")
        fits = array.ndim == len(shape) and all(
            size >= 1 if expected is None else size == expected
            for size, expected in zip(array.shape, shape, strict=True)
        )
        if not fits:
            shown = ", ".join("any" if size is None else str(size) for size in shape)
            raise AdapterRefused(f"{self.file}: {name} has shape {list(array.shape)}, expected [{shown}]")
        return array

    def finish(self) -> None:
        """Raises `AdapterRefused` naming the remaining tensors."""
        if self._tensors:
            shown = ", ".join(self.remaining[:5])
            more = f" and {len(self._tensors) - 5} more" if len(self._tensors) > 5 else ""
            raise AdapterRefused(f"{self.file} holds tensors that would not be applied: {shown}{more}")
