"""Base artifacts: folders with `spec.json`, `model.safetensors` under HMI's own tensor names, `tokenizer.json` and,
for chat models, `chat.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from hmi.errors import Corrupt, InvalidInput
from hmi.models.families.bert import HBert
from hmi.models.families.decoder import HGpt
from hmi.models.families.hplm import HPLM
from hmi.models.families.protocol import ServedModel
from hmi.models.families.served_bert import ServedBert
from hmi.models.families.served_decoder import ServedGpt
from hmi.models.text import CHAT, ChatTemplate
from hmi.spec import SPEC_FILE, HPLMSpec, read_spec

WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the base model's tokenizer, with truncation and padding off. Raises `Corrupt`."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # tokenizers raises bare Exception
        raise Corrupt(f"{folder.name}: {TOKENIZER} cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def load_hplm(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> HPLM:
    """Load a base artifact's model in evaluation mode. Raises `Corrupt` for a missing or surplus tensor."""
    spec = read_spec(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise Corrupt(f"{folder.name}: {WEIGHTS} cannot be read: {error}") from error
    return build_hplm(spec, tensors, folder.name, device, dtype)


def load_hbert(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> HBert:
    """As `load_hplm`. Raises `InvalidInput` for a decoder."""
    model = load_hplm(folder, device, dtype)
    if not isinstance(model, HBert):
        raise InvalidInput(f"{folder.name} is a decoder ({model.spec.family}), and an encoder is needed here")
    return model


def load_hgpt(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> HGpt:
    """As `load_hplm`. Raises `InvalidInput` for an encoder."""
    model = load_hplm(folder, device, dtype)
    if not isinstance(model, HGpt):
        raise InvalidInput(f"{folder.name} is an encoder ({model.spec.family}), and a decoder is needed here")
    return model


def load_served(folder: Path, device: torch.device, dtype: torch.dtype) -> ServedModel:
    """Load a base artifact's model for serving. Raises `Corrupt`, as `load_hplm`."""
    if read_spec(folder).family.decodes:
        return ServedGpt(load_hgpt(folder, device, dtype))
    return ServedBert(load_hbert(folder, device, dtype))


def build_hplm(
    spec: HPLMSpec, tensors: Mapping[str, Tensor], name: str, device: torch.device | str, dtype: torch.dtype
) -> HPLM:
    """Build a model from tensors under the artifact's names. Raises `Corrupt`."""
    with torch.device("meta"):
        model = HGpt(spec) if spec.family.decodes else HBert(spec)
    try:
        model.load_state_dict({key: t.to(device, dtype) for key, t in tensors.items()}, strict=True, assign=True)
    except RuntimeError as error:
        raise Corrupt(f"{name}: {WEIGHTS} does not fit {SPEC_FILE}: {error}") from error
    model.requires_grad_(False)
    return model.eval()


def save_hplm(
    out: Path, spec: HPLMSpec, tensors: dict[str, Tensor], tokenizer: Tokenizer, chat: ChatTemplate | None = None
) -> None:
    """Write a base artifact's folder; `tensors` under the artifact's names."""
    out.mkdir(parents=True, exist_ok=True)
    (out / SPEC_FILE).write_text(spec.to_json())
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out / WEIGHTS)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(out / TOKENIZER))
    if chat is not None:
        (out / CHAT).write_text(chat.to_json())
