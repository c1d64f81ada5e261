"""What a family's module provides, and helpers that the families share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from hmi.errors import InvalidInput
from hmi.models.layers import ACTIVATIONS
from hmi.spec import HPLMSpec, RowDtype

Config = Mapping[str, Any]


class FamilyConverter(Protocol):
    """A family's names in transformers: a module of this package."""

    def read_spec(self, config: Config, k: int, row_dtype: RowDtype) -> HPLMSpec:
        """Read the spec from `config.json`. Raises `InvalidInput` for an unsupported setting, `KeyError` for a missing
        one, `ValueError` for bad sizes."""

    def rename(self, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
        """Return the artifact's tensors that a tensor becomes: none where serving does not use it. None for a name that
        the family does not have."""


def activation_of(config: Config, name: str, default: str) -> str:
    """Raises `InvalidInput`."""
    activation = config.get(name, default)
    if activation not in ACTIVATIONS:
        raise InvalidInput(f"{name} {activation!r} is not supported; supported: {', '.join(sorted(ACTIVATIONS))}")
    return str(activation)


def decoder_fields(config: Config) -> dict[str, Any]:
    found = config.get("eos_token_id")
    eos = tuple(found) if isinstance(found, list) else () if found is None else (found,)
    padding = config.get("pad_token_id")
    if padding is None:
        padding = eos[0] if eos else 0
    return {"type_vocab_size": 0, "has_pooler": False, "pad_token_id": padding, "eos_token_ids": eos}
