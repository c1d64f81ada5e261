"""Adapters that identify themselves: the answer to any text encodes the number of its adapter.

A head encodes its number in its biases. A bottleneck encodes the same number again: its bias dominates the hidden
states of the last layer, which the head reads. So an answer that mixes two adapters, or uses rows of an evicted one, is
detected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmi.adapters import Activation, Adapter, AdapterKind, Bottleneck, Head, Lora, Pooling, Transform
from hmi.items import Classification, Outcome
from hmi.spec import HPLMSpec, Placement, Site

__all__ = ["MAX_NUMBER", "Spelt", "numbered_adapter", "spelt"]

_BITS = 16
MAX_NUMBER = 2**_BITS - 1


@dataclass(frozen=True, slots=True)
class Spelt:
    """The numbers that an answer encodes; `body` is meaningless for a LoRA."""

    head: int
    body: int


def numbered_adapter(spec: HPLMSpec, kind: AdapterKind, rank: int, number: int) -> Adapter:
    """An adapter of the last layer, with a head of 32 labels; the model's hidden size must be at least 32."""
    rng = np.random.default_rng(number)
    last = spec.layers - 1
    signs = np.array([1.0 if number >> bit & 1 else -1.0 for bit in range(_BITS)], np.float32)
    lora, bottleneck = {}, {}
    if kind is AdapterKind.LORA:
        inputs, outputs = spec.site_shape(Site.V)
        lora[last, Site.V] = Lora(_normal(rng, rank, inputs), _normal(rng, outputs, rank))
    if kind is AdapterKind.BOTTLENECK:
        width = spec.hidden_size
        towers = np.zeros(width, np.float32)
        towers[0 : 2 * _BITS : 2], towers[1 : 2 * _BITS : 2] = -1000 * signs, 1000 * signs
        bottleneck[last, Placement.OUTPUT] = Bottleneck(
            _normal(rng, rank, width), _normal(rng, rank), _normal(rng, width, rank), towers
        )
    return Adapter(kind, lora, bottleneck, True, Activation.RELU, _head(spec, signs))


def spelt(outcome: Outcome) -> Spelt:
    """Read an answer; raises the outcome's error where there is one."""
    if outcome.error is not None:
        raise outcome.error
    if not isinstance(outcome.result, Classification):
        raise TypeError(f"{outcome.result} is not a classification")
    bits = [probability > 0.5 for probability in outcome.result.probs]
    return Spelt(head=_number(bits[_BITS:]), body=_number(bits[:_BITS]))


def _head(spec: HPLMSpec, signs: np.ndarray) -> Head:
    out = np.zeros((2 * _BITS, spec.hidden_size), np.float32)
    for bit in range(_BITS):
        out[bit, 2 * bit], out[bit, 2 * bit + 1] = -4, 4
    return Head(
        pooling=Pooling.MEAN,
        transform=Transform.NONE,
        activation=Activation.TANH,
        dense=None,
        dense_bias=None,
        out=out,
        out_bias=np.concatenate([np.zeros(_BITS, np.float32), 8 * signs]),
        labels=tuple(f"{part} {bit}" for part in ("body", "head") for bit in range(_BITS)),
        multi_label=True,
    )


def _number(bits: list[bool]) -> int:
    return sum(1 << place for place, bit in enumerate(bits) if bit)


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, 0.3, shape).astype(np.float32)
