"""LoRA pairs as float32 parameters, and the plain arrays that they become."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from hmi.adapters import Array, Lora
from hmi.adapters.maths import LoraTensors
from hmi.spec import HPLMSpec, Site

LoraPairs = dict[tuple[int, Site], LoraTensors]


def lora_pairs(
    spec: HPLMSpec, layers: Iterable[int], sites: tuple[Site, ...], rank: int, generator: torch.Generator
) -> LoraPairs:
    """A pair for each layer and site; `b` is zero, so that the pairs add nothing yet."""
    shapes = {site: spec.site_shape(site) for site in sites}
    return {
        (layer, site): LoraTensors(random_parameter(rank, inputs, generator), zero_parameter(outputs, rank))
        for layer in layers
        for site, (inputs, outputs) in shapes.items()
    }


def random_parameter(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    # One over the square root of the fan-in: the rank's activations start at the input's own scale.
    return nn.Parameter(torch.randn(rows, columns, generator=generator) / math.sqrt(columns))


def zero_parameter(*shape: int) -> Tensor:
    return nn.Parameter(torch.zeros(*shape))


def cast_pairs(pairs: LoraPairs, dtype: torch.dtype) -> LoraPairs:
    return {key: LoraTensors(part.a.to(dtype), part.b.to(dtype)) for key, part in pairs.items()}


def pair_arrays(pairs: LoraPairs) -> dict[tuple[int, Site], Lora]:
    return {key: Lora(array_of(part.a), array_of(part.b)) for key, part in pairs.items()}


def array_of(tensor: Tensor) -> Array:
    return cast(Array, tensor.detach().cpu().numpy().copy())
