"""Pretrained models: converted to base artifacts, or loaded as they are to compare with.

Of folders only safetensors are read, and no code that lies beside a model is ever run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hmi.errors import InvalidInput
from hmi.models.convert import bert, gpt2, llama
from hmi.models.convert.files import Folder, Opened, resolve_source
from hmi.models.convert.gguf import GgufFile
from hmi.models.convert.source import Source
from hmi.models.families import HPLM, build_hplm, load_hplm, save_hplm
from hmi.spec import Family, HPLMSpec, RowDtype

__all__ = ["convert_pretrained", "family_of", "load_pretrained", "pretrained_tensors", "resolve_source"]

_SOURCES: Mapping[str, Source] = {Family.BERT: bert, Family.GPT2: gpt2, Family.LLAMA: llama}


def convert_pretrained(source: Path, out: Path, *, k: int = 0, row_dtype: RowDtype = RowDtype.INT8) -> HPLMSpec:
    """Make a base artifact from a transformers folder or a GGUF file.

    With k > 0 the lower layers are used on windows as they are: `window.projection` is the identity and what corrects
    positions is zero. `hmi.training.distill.base` fits both. Raises `InvalidInput` naming what is not understood.
    """
    opened = _open(source)
    spec, tensors = _read(source, opened, k, row_dtype)
    chat = opened.chat()
    if chat is not None:
        chat.check()
    save_hplm(out, spec, tensors, opened.tokenizer(), chat)
    load_hplm(out)  # proves that names and shapes are whole
    return spec


def family_of(source: Path) -> Family:
    """Of a transformers folder or GGUF file, from its configuration alone. Raises `InvalidInput`."""
    opened = _open(source)
    _family(opened)
    return Family(str(opened.config["model_type"]))


def load_pretrained(source: Path, like: HPLMSpec, device: torch.device | str, dtype: torch.dtype) -> HPLM:
    """The ordinary model of a transformers folder, to compare an hPLM of the shapes `like` with: its `full_lower` and
    its layers are what counts. Raises `InvalidInput` where the folder is not understood or holds another shape.
    """
    spec, tensors = _read(source, _open(source), like.k, like.row_dtype)
    for name in ("family", "vocab_size", "hidden_size", "layers", "heads", "intermediate_size", "activation"):
        if getattr(spec, name) != getattr(like, name):
            raise InvalidInput(f"{source}: {name} is {getattr(spec, name)}, and the base's is {getattr(like, name)}")
    return build_hplm(spec, tensors, source.name, device, dtype)


def pretrained_tensors(source: Path) -> dict[str, Tensor]:
    """The weights of a transformers folder under the artifact's names, float32; those of an output embedding that is
    the input's are there once.

    Raises `InvalidInput` naming what is not understood.
    """
    return _read(source, _open(source), 0, RowDtype.INT8)[1]


def _open(source: Path) -> Opened:
    return GgufFile(source) if source.is_file() else Folder(source)


def _read(source: Path, opened: Opened, k: int, row_dtype: RowDtype) -> tuple[HPLMSpec, dict[str, Tensor]]:
    family = _family(opened)
    try:
        spec = family.read_spec(opened.config, k, row_dtype)
    except KeyError as error:
        raise InvalidInput(f"{source}: the configuration lacks {error}") from error
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{source}: {error}") from error
    tensors = _tensors(source, opened, family)
    spec = dataclasses.replace(spec, has_pooler="pooler.weight" in tensors)
    if spec.tied:
        tensors.pop("head", None)  # the same weights twice
    return spec, tensors | (family.window_tensors(tensors, spec) if k else {})


def _family(opened: Opened) -> Source:
    kind = opened.config.get("model_type")
    source = _SOURCES.get(str(kind))
    if source is None:
        raise InvalidInput(f"model_type {kind!r} is not supported; supported: {', '.join(sorted(_SOURCES))}")
    return source


def _tensors(source: Path, opened: Opened, family: Source) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in opened.tensors():
        ours = family.rename(name, tensor)
        if ours is None:
            unknown.append(name)
        else:
            renamed |= ours
    if unknown:
        kind = opened.config["model_type"]
        raise InvalidInput(f"{source}: tensors that a {kind} does not have: {', '.join(sorted(unknown)[:5])}")
    return renamed
