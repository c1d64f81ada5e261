"""Pretrained models: converted to base artifacts, or loaded unchanged. Code in a model's folder never runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hmi.errors import InvalidInput
from hmi.models.convert import bert, gpt2, llama
from hmi.models.convert.files import PretrainedFolder, PretrainedSource
from hmi.models.convert.gguf import GgufFile
from hmi.models.convert.source import FamilyConverter
from hmi.models.families import HPLM, WINDOW, build_hplm, load_hplm, save_hplm
from hmi.spec import Family, HPLMSpec, RowDtype

_CONVERTERS: Mapping[str, FamilyConverter] = {Family.BERT: bert, Family.GPT2: gpt2, Family.LLAMA: llama}


def convert_pretrained(source: Path, out: Path, *, k: int = 0, row_dtype: RowDtype = RowDtype.INT8) -> HPLMSpec:
    """Make a base artifact from a transformers folder or a GGUF file.

    With k > 0 the unchanged lower layers run on windows: `window.projection` is the identity and the correction of
    positions is zero. `hmi.training.distill` fits both. Raises `InvalidInput` naming what is not understood.
    """
    opened = _open(source)
    spec, tensors = _read(source, opened, k, row_dtype)
    chat = opened.chat()
    if chat is not None:
        chat.check()
    save_hplm(out, spec, tensors, opened.tokenizer(), chat)
    load_hplm(out)  # checks names and shapes
    return spec


def family_of(source: Path) -> Family:
    """Read the family of a transformers folder or GGUF file from its configuration. Raises `InvalidInput`."""
    opened = _open(source)
    _family(opened)
    return Family(str(opened.config["model_type"]))


def load_pretrained(source: Path, like: HPLMSpec, device: torch.device | str, dtype: torch.dtype) -> HPLM:
    """Load a folder's ordinary model, to compare it with an hPLM of the spec `like`. Raises `InvalidInput`."""
    spec, tensors = _read(source, _open(source), like.k, like.row_dtype)
    for name in ("family", "vocab_size", "hidden_size", "layers", "heads", "intermediate_size", "activation"):
        if getattr(spec, name) != getattr(like, name):
            raise InvalidInput(f"{source}: {name} is {getattr(spec, name)}, and the base's is {getattr(like, name)}")
    return build_hplm(spec, tensors, source.name, device, dtype)


def pretrained_tensors(source: Path) -> dict[str, Tensor]:
    """Read a folder's weights under the artifact's names, float32, without a tied head. Raises `InvalidInput`."""
    return _read(source, _open(source), 0, RowDtype.INT8)[1]


def _open(source: Path) -> PretrainedSource:
    return GgufFile(source) if source.is_file() else PretrainedFolder(source)


def _read(source: Path, opened: PretrainedSource, k: int, row_dtype: RowDtype) -> tuple[HPLMSpec, dict[str, Tensor]]:
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
        tensors.pop("head", None)  # a duplicate of embeddings.word
    return spec, tensors | (_window_tensors(tensors, spec) if k else {})


def _window_tensors(tensors: Mapping[str, Tensor], spec: HPLMSpec) -> dict[str, Tensor]:
    """Return the additional weights of a base with k > 0, before any training."""
    added = {
        "window.projection.weight": torch.eye(spec.hidden_size),
        "window.projection.bias": torch.zeros(spec.hidden_size),
    }
    if spec.rope_theta is None:
        positions = tensors["embeddings.position"]
        # The first positions: lower layers attend to position 0 as an attention sink. With the fitted correction the
        # error is 0.67, against 0.71 to 0.82 for other positions (k = 2 on MiniLM-L6).
        added |= {"window.position": positions[:WINDOW].clone(), "correction.position": torch.zeros_like(positions)}
    return added


def _family(opened: PretrainedSource) -> FamilyConverter:
    kind = opened.config.get("model_type")
    converter = _CONVERTERS.get(str(kind))
    if converter is None:
        raise InvalidInput(f"model_type {kind!r} is not supported; supported: {', '.join(sorted(_CONVERTERS))}")
    return converter


def _tensors(source: Path, opened: PretrainedSource, family: FamilyConverter) -> dict[str, Tensor]:
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
