"""A pretrained model's folder: found, and read without running anything of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from hmi.errors import InvalidInput
from hmi.models.loader import TOKENIZER
from hmi.models.pretrained.source import Config

__all__ = ["read_config", "read_tokenizer", "read_weights", "resolve_source"]


def resolve_source(source: str) -> Path:
    """A local folder as it is, or a hub repository's safetensors, config and tokenizer downloaded.

    Raises `InvalidInput` where neither is there.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only for users who name a repository
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    wanted = ["config.json", "*.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    try:
        return Path(snapshot_download(source, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InvalidInput(f"{source!r} is neither a folder nor a model that can be downloaded: {error}") from error


def read_config(folder: Path) -> Config:
    """Raises `InvalidInput`."""
    path = folder / "config.json"
    try:
        config: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise InvalidInput(f"{path} is no object")
    found: Config = config
    return found


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All safetensors files together. Raises `InvalidInput`."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        hint = f" ({pickles[0]} is a pickle, which can run code; save it as safetensors)" if pickles else ""
        raise InvalidInput(f"{folder} holds no safetensors file{hint}")
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            tensors |= load_file(path)
        except SafetensorError as error:
            raise InvalidInput(f"{path} cannot be read: {error}") from error
    return tensors


def read_tokenizer(folder: Path) -> Tokenizer:
    """Raises `InvalidInput`."""
    if (folder / TOKENIZER).exists():
        return Tokenizer.from_file(str(folder / TOKENIZER))
    from transformers import AutoTokenizer  # noqa: PLC0415 - seconds of import, only where it is needed

    try:
        slow = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        return slow.backend_tokenizer
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidInput(f"{folder} holds no tokenizer that can be read: {error}") from error
