"""Checks an uploaded base model by the headers of its files, before anything is kept.

The tensors' names and shapes follow from the spec, so a model that cannot be loaded is refused here, not by a worker.
No tensor is read.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import IO, Any

from fastapi import UploadFile
from tokenizers import Tokenizer

from api.bases.shapes import expected_shapes
from api.uploads import plain_names
from hmi.errors import Corrupt, InvalidInput
from hmi.spec import HPLMSpec

SPEC, WEIGHTS, TOKENIZER = "spec.json", "model.safetensors", "tokenizer.json"
CHAT = "chat.json"  # optional: the chat template
_MAX_SPEC_BYTES = 64 * 1024
_MAX_CHAT_BYTES = 256 * 1024
_CHAT_FIELDS = {"template", "bos_token", "eos_token"}
_MAX_TOKENIZER_BYTES = 64 * 1024**2
_MAX_HEADER_BYTES = 64 * 1024**2
_DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_MAX_VOCABULARY = 2**21 - 1


@dataclasses.dataclass(frozen=True, slots=True)
class UploadedBase:
    """A valid base model; its streams are at their beginnings."""

    spec: HPLMSpec
    streams: Mapping[str, IO[bytes]]


def read_base(files: list[UploadFile]) -> UploadedBase:
    """Raises `InvalidInput` naming the file and what is wrong with it."""
    named = plain_names(files)
    if set(named) - {CHAT} != {SPEC, WEIGHTS, TOKENIZER}:
        found = ", ".join(sorted(named)) or "none"
        raise InvalidInput(f"a base model is {SPEC}, {WEIGHTS} and {TOKENIZER}; found {found}", param="files")
    streams = {name: file.file for name, file in named.items()}
    spec = _read_spec(_read_small(streams[SPEC], SPEC, _MAX_SPEC_BYTES))
    _check_tokenizer(_read_small(streams[TOKENIZER], TOKENIZER, _MAX_TOKENIZER_BYTES), spec)
    _check_weights(streams[WEIGHTS], named[WEIGHTS].size or 0, spec)
    if CHAT in streams:
        _check_chat(_read_small(streams[CHAT], CHAT, _MAX_CHAT_BYTES))
    for stream in streams.values():
        stream.seek(0)
    return UploadedBase(spec, streams)


def _refused(name: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{name}: {reason}", code="base_refused", param="files")


def _read_small(stream: IO[bytes], name: str, max_bytes: int) -> bytes:
    data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise _refused(name, f"more than {max_bytes} bytes long")
    return data


def _read_spec(data: bytes) -> HPLMSpec:
    try:
        spec = HPLMSpec.from_json(data.decode("utf-8"))
    except (UnicodeDecodeError, RecursionError, Corrupt) as error:
        raise _refused(SPEC, str(error)) from None
    for field in dataclasses.fields(HPLMSpec):
        value: object = getattr(spec, field.name)
        # The annotations are text here; `bool` is checked apart, since True is an int to Python.
        expected = {"int": int, "float": float, "str": str, "bool": bool}.get(str(field.type))
        if expected is not None and type(value) is not expected:
            raise _refused(SPEC, f"{field.name} must be of type {field.type}")
        if expected is int and not 0 <= int(str(value)) < 2**31:
            raise _refused(SPEC, f"{field.name} is out of range")
    if not 0 < spec.vocab_size <= _MAX_VOCABULARY or min(spec.hidden_size, spec.layers, spec.max_positions) < 1:
        raise _refused(SPEC, "the model has no tokens, no layers or no width")
    if not spec.activation.isidentifier() or not 0 < spec.layer_norm_eps < 1:
        raise _refused(SPEC, "activation or layer_norm_eps is not understood")
    return spec


def _check_tokenizer(data: bytes, spec: HPLMSpec) -> None:
    try:
        size = Tokenizer.from_buffer(data).get_vocab_size()
    except Exception as error:  # noqa: BLE001 - the library raises plain Exception for what it cannot read
        raise _refused(TOKENIZER, f"not a tokenizer: {str(error)[:200]}") from None
    if size > spec.vocab_size:
        raise _refused(TOKENIZER, f"it knows {size} tokens, the model {spec.vocab_size}")


def _check_chat(data: bytes) -> None:
    """The template is compiled by workers, in a sandbox."""
    try:
        found: object = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _refused(CHAT, "not JSON") from None
    texts = found.values() if isinstance(found, dict) and found.keys() == _CHAT_FIELDS else [None]
    if not all(isinstance(text, str) for text in texts):
        raise _refused(CHAT, f"must have the fields {', '.join(sorted(_CHAT_FIELDS))}, each a string")


def _check_weights(stream: IO[bytes], size: int, spec: HPLMSpec) -> None:
    length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
        raise _refused(WEIGHTS, "not a safetensors file")
    try:
        header: dict[str, Any] = json.loads(stream.read(length))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        found = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}
        end = max(entry["data_offsets"][1] for entry in entries.values())
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise _refused(WEIGHTS, "its header is not a safetensors header") from None
    if spec.layers > len(found):  # before a dictionary with billions of names is built
        raise _refused(WEIGHTS, f"{len(found)} tensors for the {spec.layers} layers that {SPEC} names")
    expected = expected_shapes(spec)
    for name in sorted(expected.keys() ^ found.keys()):
        raise _refused(WEIGHTS, f"tensor {name[:200]} is {'missing' if name in expected else 'not known'}")
    total = 0
    for name, (dtype, shape) in found.items():
        if shape != expected[name]:
            raise _refused(WEIGHTS, f"tensor {name} has shape {list(shape)}, {SPEC} says {list(expected[name])}")
        if dtype not in _DTYPE_BYTES:
            raise _refused(WEIGHTS, f"tensor {name} has dtype {str(dtype)[:20]}, not one of {', '.join(_DTYPE_BYTES)}")
        total += math.prod(shape) * _DTYPE_BYTES[dtype]
    if not end == total == size - 8 - length:
        raise _refused(WEIGHTS, f"{size - 8 - length} bytes of tensors, {total} expected; the file was cut short")
