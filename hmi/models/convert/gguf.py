"""GGUF files, read by transformers: quantised weights as float32, under transformers' names."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from hmi.errors import InvalidInput
from hmi.models.convert.source import Config
from hmi.models.text import ChatTemplate

_MAGIC = b"GGUF"


class GgufFile:
    """A `PretrainedSource`. The file holds weights and settings, and no code."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise InvalidInput(f"{path} is not a GGUF file")

    @property
    def config(self) -> Config:
        found: dict[str, Any] = self._model.config.to_dict()
        return found

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._model.state_dict().items():
            yield name, tensor.float()

    def tokenizer(self) -> Tokenizer:
        found: Tokenizer = self._tokenizer.backend_tokenizer
        return found

    def chat(self) -> ChatTemplate | None:
        loaded = self._tokenizer
        if not isinstance(loaded.chat_template, str):
            return None
        return ChatTemplate(loaded.chat_template, loaded.bos_token or "", loaded.eos_token or "")

    @functools.cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer  # noqa: PLC0415

        return self._load(AutoTokenizer)

    @functools.cached_property
    def _model(self) -> Any:
        import torch  # noqa: PLC0415
        from transformers import AutoModelForCausalLM  # noqa: PLC0415

        model = self._load(AutoModelForCausalLM, dtype=torch.float32)
        self._check_positions()
        return model

    def _check_positions(self) -> None:
        """Raises `InvalidInput` for scaled rotary positions, because transformers ignores the scaling."""
        from gguf import GGUFReader  # noqa: PLC0415

        reader = GGUFReader(self._path)
        for name, field in reader.fields.items():
            if name.endswith(".rope.scaling.type") and field.contents() != "none":
                raise InvalidInput(f"{self._path} scales its rotary positions ({name} is {field.contents()!r})")
        if any(tensor.name.startswith("rope_freqs") for tensor in reader.tensors):
            raise InvalidInput(f"{self._path} scales its rotary positions (it holds the tensor rope_freqs)")

    def _load(self, kind: Any, **options: Any) -> Any:
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # hides progress bars
                return kind.from_pretrained(
                    str(self._path.parent),
                    gguf_file=self._path.name,
                    local_files_only=True,
                    trust_remote_code=False,
                    **options,
                )
        except ImportError as error:
            raise InvalidInput("reading a GGUF file needs the package gguf: pip install 'hmi[gguf]'") from error
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InvalidInput(f"{self._path} cannot be read: {error}") from error
