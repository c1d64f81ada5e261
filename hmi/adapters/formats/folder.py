"""A folder that a stranger calls an adapter: only known kinds of file, of bounded size, each one accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hmi.adapters.formats.config import ConfigClaims
from hmi.adapters.formats.tensors import TensorClaims, TensorFile, read_tensors
from hmi.errors import AdapterRefused

__all__ = ["AdapterFolder"]

_MAX_CONFIG_BYTES = 1024**2
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
# What may lie beside an adapter without being applied: it holds no weights.
_HARMLESS = {"", ".md", ".txt", ".json", ".jinja", ".yaml", ".yml", ".gitattributes", ".gitignore"}


class AdapterFolder:
    """Opens files of the folder by name, and knows which weights nobody opened.

    Raises `AdapterRefused` for a folder with pickles, with folders in it or with files of a kind not known.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        if not path.is_dir():
            raise AdapterRefused(f"{path.name} is not a folder of adapter files")
        self._path = path
        self._left_bytes = max_bytes
        self._opened: set[str] = set()
        self.names = frozenset(entry.name for entry in path.iterdir())
        for name in sorted(self.names):
            suffix = Path(name).suffix.lower()
            if not (path / name).is_file():
                raise AdapterRefused(f"{name} is not a plain file; an adapter is a flat folder of files")
            if suffix in _PICKLES:
                raise AdapterRefused(
                    f"{name} is a pickle file, which can run code when it is read; save the adapter as safetensors"
                )
            if suffix != ".safetensors" and suffix not in _HARMLESS:
                raise AdapterRefused(f"{name} is not a kind of file that belongs to an adapter")

    def config(self, name: str) -> ConfigClaims:
        """The JSON object in the named file."""
        path = self._require(name)
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise AdapterRefused(f"{name} has {path.stat().st_size} bytes, more than the {_MAX_CONFIG_BYTES} allowed")
        try:
            values: Any = json.loads(path.read_bytes().decode())
        except (ValueError, RecursionError) as error:
            raise AdapterRefused(f"{name} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise AdapterRefused(f"{name} is not a JSON object")
        return ConfigClaims(name, values)

    def file(self, name: str) -> TensorFile:
        """The named safetensors file."""
        path = self._require(name)
        size = path.stat().st_size
        file = read_tensors(path, max_bytes=self._left_bytes)
        self._left_bytes -= size
        self._opened.add(name)
        return file

    def tensors(self, name: str) -> TensorClaims:
        """The tensors of the named safetensors file, to be claimed one by one."""
        return TensorClaims(self.file(name))

    def finish(self) -> None:
        """Raises `AdapterRefused` for weights that were not read."""
        for name in sorted(self.names - self._opened):
            if name.endswith(".safetensors"):
                raise AdapterRefused(f"{name} holds weights that would not be applied")

    def _require(self, name: str) -> Path:
        if name not in self.names:
            raise AdapterRefused(f"{name} is missing")
        return self._path / name
