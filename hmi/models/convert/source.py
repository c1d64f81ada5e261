"""What the folders of all families have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from hmi.errors import InvalidInput
from hmi.models.layers import ACTIVATIONS
from hmi.spec import HPLMSpec, RowDtype

__all__ = ["Config", "Source", "Tensors", "activation_of", "eos_ids_of", "identity_projection"]

Config = Mapping[str, Any]
Tensors = Mapping[str, Tensor]


class Source(Protocol):
    """How one family's folder becomes an artifact: a module of this package."""

    def read_spec(self, config: Config, k: int, row_dtype: RowDtype) -> HPLMSpec:
        """Of `config.json`. Raises `InvalidInput` for what is not supported, `KeyError` for what is missing,
        `ValueError` for bad sizes."""

    def rename(self, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
        """The artifact's tensors that one of the folder's becomes: none where serving has no use for it. None for a
        name that the family does not have."""

    def window_tensors(self, tensors: Tensors, spec: HPLMSpec) -> dict[str, Tensor]:
        """What a base with k > 0 has besides the pretrained weights, before anything was fitted."""


def activation_of(config: Config, name: str, usual: str) -> str:
    """Raises `InvalidInput`."""
    activation = config.get(name, usual)
    if activation not in ACTIVATIONS:
        raise InvalidInput(f"{name} {activation!r} is not supported; supported: {', '.join(sorted(ACTIVATIONS))}")
    return str(activation)


def eos_ids_of(config: Config) -> tuple[int, ...]:
    """What ends a generated text."""
    found = config.get("eos_token_id")
    return tuple(found) if isinstance(found, list) else () if found is None else (found,)


def identity_projection(spec: HPLMSpec) -> dict[str, Tensor]:
    return {
        "window.projection.weight": torch.eye(spec.hidden_size),
        "window.projection.bias": torch.zeros(spec.hidden_size),
    }
