"""Pretrained models on disk: found or downloaded, and read without running their code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from hmi.errors import InvalidInput
from hmi.models.convert.source import Config
from hmi.models.families import TOKENIZER
from hmi.models.text import ChatTemplate


def resolve_source(source: str) -> Path:
    """Return a local folder or GGUF file, or download a hub repository. Raises `InvalidInput` if neither exists."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only for users who name a repository
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    patterns = ["config.json", "*.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "*.jinja"]
    try:
        return Path(snapshot_download(source, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InvalidInput(f"{source!r} is neither a folder nor a model that can be downloaded: {error}") from error


class PretrainedSource(Protocol):
    """A pretrained model in any file format. Everything raises `InvalidInput`."""

    @property
    def config(self) -> Config:
        """In transformers' form."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield all weights under transformers' names, float32."""

    def tokenizer(self) -> Tokenizer: ...

    def chat(self) -> ChatTemplate | None:
        """None for a model without a chat template."""


@dataclass(frozen=True, slots=True)
class PretrainedFolder:
    """A transformers folder: safetensors, `config.json` and a tokenizer."""

    path: Path

    @property
    def config(self) -> Config:
        return _read_object(self.path / "config.json")

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        files = sorted(self.path.glob("*.safetensors"))
        if not files:
            pickles = sorted(path.name for path in self.path.glob("*.bin"))
            hint = f" ({pickles[0]} is a pickle, which can run code; save it as safetensors)" if pickles else ""
            raise InvalidInput(f"{self.path} holds no safetensors file{hint}")
        for path in files:
            try:
                found = load_file(path)
            except SafetensorError as error:
                raise InvalidInput(f"{path} cannot be read: {error}") from error
            for name, tensor in found.items():
                yield name, tensor.float()

    def tokenizer(self) -> Tokenizer:
        if (self.path / TOKENIZER).exists():
            return Tokenizer.from_file(str(self.path / TOKENIZER))
        from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds to import

        try:
            slow = AutoTokenizer.from_pretrained(str(self.path), local_files_only=True, trust_remote_code=False)
            return slow.backend_tokenizer
        except (OSError, ValueError, AttributeError) as error:
            raise InvalidInput(f"{self.path} holds no tokenizer that can be read: {error}") from error

    def chat(self) -> ChatTemplate | None:
        settings = (
            _read_object(self.path / "tokenizer_config.json") if (self.path / "tokenizer_config.json").exists() else {}
        )
        file = self.path / "chat_template.jinja"
        template = file.read_text() if file.exists() else settings.get("chat_template")
        if not isinstance(template, str):
            return None
        return ChatTemplate(template, _token(settings.get("bos_token")), _token(settings.get("eos_token")))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{path} is not a JSON object")
    return found


def _token(value: object) -> str:
    """Return a special token's text; older files have an object instead of a string."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else ""
