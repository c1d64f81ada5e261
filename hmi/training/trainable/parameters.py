"""The tensors of LoRA pairs and bottlenecks as float32 parameters, and the plain arrays that they become."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from hmi.adapters import Array, Bottleneck, Lora
from hmi.adapters.maths import BottleneckTensors, LoraTensors
from hmi.spec import HPLMSpec, Site

KeyT = TypeVar("KeyT")
PartT = TypeVar("PartT")
LoraPairs = dict[tuple[int, Site], LoraTensors]
Part = LoraTensors | BottleneckTensors | Lora | Bottleneck


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


def tensors_of(part: Part) -> list[Any]:
    """The tensors or arrays of one part, in the order of its fields."""
    return [getattr(part, field.name) for field in dataclasses.fields(part)]


def convert_parts(
    parts: Mapping[KeyT, Part], kind: Callable[..., PartT], convert: Callable[[Tensor], object]
) -> dict[KeyT, PartT]:
    """The parts as `kind`, each tensor converted."""
    return {key: kind(*map(convert, tensors_of(part))) for key, part in parts.items()}


def array_of(tensor: Tensor) -> Array:
    return cast(Array, tensor.detach().cpu().numpy().copy())
