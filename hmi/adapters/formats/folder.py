"""An uploaded folder: only known kinds of file, of bounded size, and all weights must be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hmi.adapters.formats.config import ConfigReader
from hmi.adapters.formats.tensors import TensorFile, TensorReader, read_tensors
from hmi.errors import AdapterRefused

_MAX_CONFIG_BYTES = 1024**2
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
# Files that may be present without being read: they hold no weights.
_WITHOUT_WEIGHTS = {"", ".md", ".txt", ".json", ".jinja", ".yaml", ".yml", ".gitattributes", ".gitignore"}


class AdapterFolder:
    """Opens files by name. `finish` refuses weight files that were not opened."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        """Raises `AdapterRefused` for pickles, nested folders and unknown kinds of file."""
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
            if suffix != ".safetensors" and suffix not in _WITHOUT_WEIGHTS:
                raise AdapterRefused(f"{name} is not a kind of file that belongs to an adapter")

    def config(self, name: str) -> ConfigReader:
        path = self._require(name)
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise AdapterRefused(f"{name} has {path.stat().st_size} bytes, more than the {_MAX_CONFIG_BYTES} allowed")
        try:
            values: Any = json.loads(path.read_bytes().decode())
        except (ValueError, RecursionError) as error:
            raise AdapterRefused(f"{name} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise AdapterRefused(f"{name} is not a JSON object")
        return ConfigReader(name, values)

    def file(self, name: str) -> TensorFile:
        path = self._require(name)
        size = path.stat().st_size
        file = read_tensors(path, max_bytes=self._left_bytes)
        self._left_bytes -= size
        self._opened.add(name)
        return file

    def tensors(self, name: str) -> TensorReader:
        return TensorReader(self.file(name))

    def finish(self) -> None:
        """Raises `AdapterRefused` for weights that were not read."""
        for name in sorted(self.names - self._opened):
            if name.endswith(".safetensors"):
                raise AdapterRefused(f"{name} holds weights that would not be applied")

    def _require(self, name: str) -> Path:
        if name not in self.names:
            raise AdapterRefused(f"{name} is missing")
        return self._path / name
