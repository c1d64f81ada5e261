"""Base artifacts: making one from a pretrained model's folder, and loading it.

A base artifact is a folder with `spec.json`, `model.safetensors` under HMI's own tensor names, and
`tokenizer.json`. Only safetensors are read, and no code of a model's folder is ever run.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from hmi.errors import Corrupt, InvalidInput
from hmi.models.bert import HBert
from hmi.models.dense import ACTIVATIONS
from hmi.spec import Family, HPLMSpec, RowDtype

__all__ = [
    "convert_pretrained",
    "load_hplm",
    "load_pretrained",
    "load_spec",
    "load_tokenizer",
    "pretrained_tensors",
    "resolve_source",
    "save_hplm",
]

SPEC, WEIGHTS, TOKENIZER = "spec.json", "model.safetensors", "tokenizer.json"

# Positions that windows borrow from the original. Lower layers lean on position 0 as a place to rest
# once `correction.position` is fitted (0.67 against 0.71 to 0.82 at k = 2 on MiniLM-L6).
_WINDOW_POSITIONS = slice(0, 3)

_EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "embeddings.word",
    "embeddings.position_embeddings.weight": "embeddings.position",
    "embeddings.token_type_embeddings.weight": "embeddings.token_type",
    "embeddings.LayerNorm.weight": "embeddings.norm.weight",
    "embeddings.LayerNorm.bias": "embeddings.norm.bias",
    "pooler.dense.weight": "pooler.weight",
    "pooler.dense.bias": "pooler.bias",
}
_LAYER = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "o",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "output.LayerNorm": "output_norm",
}
_LAYER_NAME = re.compile(r"^encoder\.layer\.(\d+)\.(.+)\.(weight|bias)$")
# Buffers and heads of pretraining that serving has no use for.
_IGNORED = re.compile(
    r"^(embeddings\.position_ids$|embeddings\.token_type_ids$|cls\.|classifier\.|qa_outputs\.|dropout)"
)


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


def load_spec(folder: Path) -> HPLMSpec:
    """Raises `Corrupt`."""
    try:
        return HPLMSpec.from_json((folder / SPEC).read_text())
    except OSError as error:
        raise Corrupt(f"{folder.name}: {SPEC} cannot be read: {error.strerror}") from error


def load_tokenizer(folder: Path) -> Tokenizer:
    """The base model's tokenizer, with truncation and padding off. Raises `Corrupt`."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # tokenizers raises bare Exception
        raise Corrupt(f"{folder.name}: {TOKENIZER} cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def load_hplm(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> HBert:
    """The model of a base artifact, in evaluation mode. Raises `Corrupt` for any missing or surplus tensor."""
    spec = load_spec(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise Corrupt(f"{folder.name}: {WEIGHTS} cannot be read: {error}") from error
    return _model_of(spec, tensors, folder.name, device, dtype)


def save_hplm(out: Path, spec: HPLMSpec, tensors: dict[str, Tensor], tokenizer: Tokenizer) -> None:
    """Write a base artifact's folder; `tensors` under the artifact's names."""
    out.mkdir(parents=True, exist_ok=True)
    (out / SPEC).write_text(spec.to_json())
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out / WEIGHTS)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(out / TOKENIZER))


def convert_pretrained(folder: Path, out: Path, *, k: int = 0, row_dtype: RowDtype = RowDtype.INT8) -> HPLMSpec:
    """Make a base artifact from a transformers folder of the BERT family.

    With k > 0 the lower layers are used on windows as they are: `window.projection` is the identity and
    `correction.position` zero. `hmi.training.base` fits both. Raises `InvalidInput` naming what is not understood.
    """
    spec = _read_config(folder, k=k, row_dtype=row_dtype)
    tensors = pretrained_tensors(folder)
    spec = dataclasses.replace(spec, has_pooler="pooler.weight" in tensors)
    save_hplm(out, spec, tensors | _windows(tensors, spec), _read_tokenizer(folder))
    load_hplm(out)  # proves that names and shapes are whole
    return spec


def load_pretrained(folder: Path, like: HPLMSpec, device: torch.device | str, dtype: torch.dtype) -> HBert:
    """The ordinary model of a transformers folder, to compare an hPLM of the shapes `like` with: its `full_lower` and
    its layers are what counts. Raises `InvalidInput` where the folder is not understood or holds another shape.
    """
    tensors = pretrained_tensors(folder)
    spec = _read_config(folder, k=like.k, row_dtype=like.row_dtype)
    spec = dataclasses.replace(spec, has_pooler="pooler.weight" in tensors)
    for name in ("vocab_size", "hidden_size", "layers", "heads", "intermediate_size", "activation"):
        if getattr(spec, name) != getattr(like, name):
            raise InvalidInput(f"{folder}: {name} is {getattr(spec, name)}, and the base's is {getattr(like, name)}")
    return _model_of(spec, tensors | _windows(tensors, spec), folder.name, device, dtype)


def _windows(tensors: dict[str, Tensor], spec: HPLMSpec) -> dict[str, Tensor]:
    """What a base with k > 0 has besides the pretrained weights, before anything was fitted."""
    if not spec.k:
        return {}
    return {
        "window.position": tensors["embeddings.position"][_WINDOW_POSITIONS].clone(),
        "window.projection.weight": torch.eye(spec.hidden_size),
        "window.projection.bias": torch.zeros(spec.hidden_size),
        "correction.position": torch.zeros_like(tensors["embeddings.position"]),
    }


def _model_of(
    spec: HPLMSpec, tensors: dict[str, Tensor], name: str, device: torch.device | str, dtype: torch.dtype
) -> HBert:
    with torch.device("meta"):
        model = HBert(spec)
    try:
        model.load_state_dict({key: t.to(device, dtype) for key, t in tensors.items()}, strict=True, assign=True)
    except RuntimeError as error:
        raise Corrupt(f"{name}: {WEIGHTS} does not fit {SPEC}: {error}") from error
    model.requires_grad_(False)
    return model.eval()


def pretrained_tensors(folder: Path) -> dict[str, Tensor]:
    """The weights of a transformers folder of the BERT family under the artifact's names, float32.

    Raises `InvalidInput` naming what is not understood.
    """
    return _rename(_read_weights(folder), folder)


def _read_config(folder: Path, *, k: int, row_dtype: RowDtype) -> HPLMSpec:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{folder / 'config.json'} cannot be read: {error}") from error
    if config.get("model_type") != Family.BERT:
        raise InvalidInput(f"model_type {config.get('model_type')!r} is not supported; supported: {Family.BERT}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise InvalidInput(f"position_embedding_type {config['position_embedding_type']!r} is not supported")
    if config.get("is_decoder"):
        raise InvalidInput("a BERT with is_decoder set attends to the left only; it is not an encoder")
    activation = config.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise InvalidInput(f"hidden_act {activation!r} is not supported; supported: {', '.join(sorted(ACTIVATIONS))}")
    try:
        return HPLMSpec(
            family=Family.BERT,
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            intermediate_size=config["intermediate_size"],
            max_positions=config["max_position_embeddings"],
            type_vocab_size=config["type_vocab_size"],
            layer_norm_eps=config["layer_norm_eps"],
            activation=activation,
            pad_token_id=config.get("pad_token_id") or 0,
            k=k,
            row_dtype=row_dtype,
        )
    except KeyError as error:
        raise InvalidInput(f"{folder / 'config.json'} lacks {error}") from error
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
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


def _rename(tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        plain = name.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias")
        if _IGNORED.match(plain):
            continue
        layer = _LAYER_NAME.match(plain)
        if layer and layer[2] in _LAYER:
            renamed[f"layers.{layer[1]}.{_LAYER[layer[2]]}.{layer[3]}"] = tensor.float()
        elif plain in _EMBEDDINGS:
            renamed[_EMBEDDINGS[plain]] = tensor.float()
        else:
            unknown.append(name)
    if unknown:
        raise InvalidInput(f"{folder}: tensors that a BERT does not have: {', '.join(sorted(unknown)[:5])}")
    return renamed


def _read_tokenizer(folder: Path) -> Tokenizer:
    if (folder / TOKENIZER).exists():
        return Tokenizer.from_file(str(folder / TOKENIZER))
    from transformers import AutoTokenizer  # noqa: PLC0415 - seconds of import, only where it is needed

    try:
        slow = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        return slow.backend_tokenizer
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidInput(f"{folder} holds no tokenizer that can be read: {error}") from error
