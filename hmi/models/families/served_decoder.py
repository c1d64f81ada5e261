"""The serving forward of decoders: sequences of many tenants together, their keys and values in pages.

It equals `HGpt` without gradients: q, k and v in one product, gate and fc1 in another, residuals added in the product
where the device can, adapters added in place. `prefill` runs a sequence once, `decode` then adds one token per step
beside other sequences; `upper` runs sequences that are not continued.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hmi.adapters.maths import ServingAdapters
from hmi.models.families.decoder import READING_ORDER, DecoderLayer, HGpt
from hmi.models.families.hplm import WINDOW
from hmi.models.families.protocol import ServedDecoder
from hmi.models.layers import (
    ACTIVATIONS,
    Dense,
    PagedKvCache,
    PageGroup,
    Rotary,
    ServedEstimator,
    causal_mask,
    join_dense,
    make_dense,
)
from hmi.spec import HPLMSpec, Site

_Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Layer number, q [B, T, heads, size], k and v [B, T, key heads, size] -> [B, T, heads, size]."""


class ServedGpt:
    """A `ServedDecoder` of an hGPT. It takes over the tensors of `model`, which must not be used afterwards."""

    pooler: Callable[[Tensor], Tensor] | None = None

    def __init__(self, model: HGpt) -> None:
        self.spec = model.spec
        self.dtype = model.dtype
        self.device = model.device
        self._word = model.embeddings.word
        self._norm = model.norm
        self._layers = [_ServedLayer(layer, self.spec) for layer in model.transformer_layers]
        self._head = make_dense(model.head_weight, None)
        self._learns_positions = model.learns_positions
        if self._learns_positions:
            self._position = model.correction.position if self.spec.k else model.embeddings.position
        if self.spec.k:
            self._projection = join_dense(model.window.projection)
            if self._learns_positions:
                self._window_position = model.window.position
        self.estimator = ServedEstimator(model.estimator) if self.spec.estimator_size else None

    @property
    def decoder(self) -> ServedDecoder:
        return self

    def unfused_layers(self, *, first_only: bool) -> range:
        return range(self.spec.layers)

    def lower(self, windows: Tensor, delta: ServingAdapters | None = None) -> Tensor:
        ids = windows[:, READING_ORDER]  # [n, 3]
        x = F.embedding(ids.clamp(min=0), self._word)  # [n, 3, H]
        if self._learns_positions:
            x = x + self._window_position
        mask = causal_mask(ids >= 0)  # [n, 1, 3, 3]
        rotary = self._rotary(torch.arange(WINDOW, device=self.device).expand(len(ids), WINDOW))

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return _attention(q, k, v, mask)

        for number in range(self.spec.k):
            x = self._layers[number](x, attend, rotary, delta)
        return self._projection(x[:, -1].contiguous())  # [n, H]

    def embed(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        return self.merge(F.embedding(ids, self._word), positions)

    def merge(self, rows: Tensor, positions: Tensor | None = None) -> Tensor:
        if not self._learns_positions:
            return rows
        return rows + (self._position[: rows.shape[1]] if positions is None else self._position[positions])

    def prefill(
        self, hidden: Tensor, mask: Tensor, pages: PagedKvCache, places: Tensor, adapters: ServingAdapters | None = None
    ) -> Tensor:
        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            pages.write(layer, k[mask], v[mask], places)
            return _attention(q, k, v)

        positions = torch.arange(hidden.shape[1], device=self.device).expand(hidden.shape[:2])
        return self._upper(hidden, attend, positions, adapters)

    def upper(
        self,
        hidden: Tensor,
        mask: Tensor | None = None,
        adapters: ServingAdapters | None = None,
        *,
        first_only: bool = False,
    ) -> Tensor:
        """As `prefill`, and store nothing."""

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return _attention(q, k, v)

        positions = torch.arange(hidden.shape[1], device=self.device).expand(hidden.shape[:2])
        states = self._upper(hidden, attend, positions, adapters)
        return states[:, :1] if first_only else states

    def decode(
        self,
        hidden: Tensor,
        positions: Tensor,
        pages: PagedKvCache,
        places: Tensor,
        parts: Sequence[PageGroup],
        adapters: ServingAdapters | None = None,
    ) -> Tensor:
        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            pages.write(layer, k[:, 0], v[:, 0], places)
            return pages.attend(layer, q, parts)

        return self._upper(hidden, attend, positions[:, None], adapters)

    def logits(self, states: Tensor) -> Tensor:
        return self._head(states.contiguous())

    def _upper(self, hidden: Tensor, attend: _Attend, positions: Tensor, adapters: ServingAdapters | None) -> Tensor:
        rotary = self._rotary(positions)
        for number in range(self.spec.k, self.spec.layers):
            hidden = self._layers[number](hidden, attend, rotary, adapters)
        normed: Tensor = self._norm(hidden)
        return normed

    def _rotary(self, positions: Tensor) -> Rotary | None:
        if self.spec.rope_theta is None:
            return None
        return Rotary.at(positions, self.spec.head_width, self.spec.rope_theta, self.dtype)


class _ServedLayer:
    def __init__(self, layer: DecoderLayer, spec: HPLMSpec) -> None:
        self._number = layer.number
        self._heads, self._key_heads = spec.heads, spec.key_heads
        self._activation = ACTIVATIONS[spec.activation]
        self._is_gated = Site.GATE in spec.sites
        self._inner = spec.intermediate_size
        self._qkv = join_dense(layer.q, layer.k, layer.v)
        self._o = join_dense(layer.o)
        self._fc1 = join_dense(layer.fc1, layer.gate) if self._is_gated else join_dense(layer.fc1)
        self._fc2 = join_dense(layer.fc2)
        self._attention_norm = layer.attention_norm
        self._inner_norm = layer.inner_norm

    def __call__(self, x: Tensor, attend: _Attend, rotary: Rotary | None, adapters: ServingAdapters | None) -> Tensor:
        """x [B, T, H] -> [B, T, H]"""
        count, tokens, _ = x.shape
        states = self._attention_norm(x)  # [B, T, H]
        heads = self._qkv(_flat(states)).view(count, tokens, self._heads + 2 * self._key_heads, -1)  # [B, T, all, size]
        if adapters is not None:
            width = self._heads * heads.shape[3]
            flat = heads.flatten(2)  # [B, T, all heads * size]
            adapters.lora(self._number, (Site.Q,), states, flat[:, :, :width].unsqueeze(2))
            adapters.lora(self._number, (Site.K, Site.V), states, flat[:, :, width:].view(count, tokens, 2, -1))
        rotated = self._heads + self._key_heads
        if rotary is not None:
            heads[:, :, :rotated] = rotary(heads[:, :, :rotated].transpose(1, 2)).transpose(1, 2)
        q, k, v = torch.split(heads, [self._heads, self._key_heads, self._key_heads], 2)
        context = attend(self._number, q, k, v).reshape(count, tokens, -1)  # [B, T, heads * size]
        x = self._finish(self._o, Site.O, context, x, adapters)
        return self._finish(self._fc2, Site.FC2, self._feed_forward(x, adapters), x, adapters)

    def _feed_forward(self, x: Tensor, adapters: ServingAdapters | None) -> Tensor:
        states = self._inner_norm(x)
        inner = self._fc1(_flat(states)).view(*x.shape[:2], -1)  # [B, T, inner], twice as wide with a gate
        if adapters is not None:
            adapters.lora(self._number, (Site.FC1,), states, inner[:, :, : self._inner].unsqueeze(2))
            if self._is_gated:
                adapters.lora(self._number, (Site.GATE,), states, inner[:, :, self._inner :].unsqueeze(2))
        if self._is_gated:
            return self._activation(inner[:, :, self._inner :]) * inner[:, :, : self._inner]
        return self._activation(inner)

    def _finish(
        self, dense: Dense, site: Site, x: Tensor, residual: Tensor, adapters: ServingAdapters | None
    ) -> Tensor:
        """Finish a sub-layer: dense, residual, adapters. x [B, T, in], residual [B, T, H] -> [B, T, H]"""
        total = dense.plus(_flat(x), _flat(residual)).view(residual.shape)
        if adapters is not None:
            adapters.lora(self._number, (site,), x, total.unsqueeze(2))
        return total


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend by the mask bool [B, 1, T, T], or causally without one: padding lies behind the real tokens.

    q [B, T, heads, size], k and v [B, T, key heads, size] -> [B, T, heads, size]
    """
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))  # [B, heads, T, size]
    is_grouped = q.shape[1] != k.shape[1]
    context = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=is_grouped)
    return context.transpose(1, 2)


def _flat(x: Tensor) -> Tensor:
    """[B, T, width] -> [B * T, width], contiguous."""
    return x.reshape(-1, x.shape[-1]).contiguous()
