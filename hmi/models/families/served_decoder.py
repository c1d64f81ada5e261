"""The forward of serving for decoders: many tenants' sequences together, their keys and values in pages.

It computes what `HGpt` computes, without gradients: q, k and v in one product, gate and fc1 in another, residuals added
in the product where the device can, adapters added in place. A sequence is read once (`prefill`) and then continued by
one token at a time (`decode`), beside any others; or it is read for its classes alone (`upper`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hmi.adapters.maths import ServingAdapters
from hmi.models.families.decoder import READING_ORDER, WINDOW, DecoderLayer, HGpt, causal_mask
from hmi.models.families.protocol import ServedDecoder
from hmi.models.layers import ACTIVATIONS, Dense, PagedKvCache, PageGroup, Rotary, ServedEstimator, make_dense
from hmi.spec import HPLMSpec, Site

__all__ = ["ServedGpt"]

_Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Layer number, q [B, T, heads, size], k and v [B, T, fewer heads, size] -> [B, T, heads, size]."""


class ServedGpt:
    """A `ServedDecoder` of an hGPT. It takes the model's tensors over: `model` must not be used afterwards."""

    pooler: Callable[[Tensor], Tensor] | None = None

    def __init__(self, model: HGpt) -> None:
        self.spec = model.spec
        self.dtype = model.dtype
        self.device = model.device
        self._word = model.embeddings.word
        self._norm = model.norm
        self._layers = [_ServedLayer(layer, self.spec) for layer in model.transformer_layers]
        self._head = make_dense(*_with_bias(model.embeddings.word if self.spec.tied else model.head))
        self._learns_positions = self.spec.rope_theta is None
        if self._learns_positions:
            self._position = model.correction.position if self.spec.k else model.embeddings.position
        if self.spec.k:
            self._projection = make_dense(model.window.projection.weight, model.window.projection.bias)
            if self._learns_positions:
                self._window_position = model.window.position
        self.estimator = ServedEstimator(model.estimator) if self.spec.estimator_size else None

    @property
    def decoder(self) -> ServedDecoder:
        return self

    def unfused_layers(self, *, first_only: bool) -> range:
        return range(self.spec.layers)

    def lower(self, windows: Tensor, delta: ServingAdapters | None = None) -> Tensor:
        ids = windows[:, READING_ORDER]  # keys hold (t-1, t, t-2)
        x = F.embedding(ids.clamp(min=0), self._word)
        if self._learns_positions:
            x = x + self._window_position
        reach = causal_mask(ids >= 0)
        rotary = self._rotary(torch.arange(WINDOW, device=self.device).expand(len(ids), WINDOW))

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return _plain(q, k, v, reach)

        for number in range(self.spec.k):
            x = self._layers[number](x, attend, rotary, delta)
        return self._projection(x[:, -1].contiguous())

    def embed(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        return self.merge(F.embedding(ids, self._word), positions)

    def merge(self, rows: Tensor, positions: Tensor | None = None) -> Tensor:
        if not self._learns_positions:
            return rows
        return rows + (self._position[: rows.shape[1]] if positions is None else self._position[positions])

    def prefill(
        self,
        hidden: Tensor,
        mask: Tensor,
        pages: PagedKvCache,
        places: Tensor,
        adapters: ServingAdapters | None = None,
    ) -> Tensor:
        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            pages.write(layer, k[mask], v[mask], places)
            return _causal(q, k, v)

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
            return _causal(q, k, v)

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
            return pages.look_back(layer, q, parts)

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
        self._qkv = _dense(layer, Site.Q, Site.K, Site.V)
        self._o = _dense(layer, Site.O)
        self._fc1 = _dense(layer, Site.FC1, Site.GATE) if self._is_gated else _dense(layer, Site.FC1)
        self._fc2 = _dense(layer, Site.FC2)
        self._attention_norm = layer.attention_norm
        self._inner_norm = layer.inner_norm

    def __call__(self, x: Tensor, attend: _Attend, rotary: Rotary | None, adapters: ServingAdapters | None) -> Tensor:
        """x `[B, T, H]` -> `[B, T, H]`."""
        count, tokens, _ = x.shape
        states = self._attention_norm(x)
        heads = self._qkv(_flat(states)).view(count, tokens, self._heads + 2 * self._key_heads, -1)
        if adapters is not None:
            width = self._heads * heads.shape[3]
            flat = heads.flatten(2)
            adapters.lora(self._number, (Site.Q,), states, flat[:, :, :width].unsqueeze(2))
            adapters.lora(self._number, (Site.K, Site.V), states, flat[:, :, width:].view(count, tokens, 2, -1))
        turned = self._heads + self._key_heads
        if rotary is not None:
            heads[:, :, :turned] = rotary(heads[:, :, :turned].transpose(1, 2)).transpose(1, 2)
        q, k, v = torch.split(heads, [self._heads, self._key_heads, self._key_heads], 2)
        context = attend(self._number, q, k, v).reshape(count, tokens, -1)
        x = self._close(self._o, Site.O, context, x, adapters)
        return self._close(self._fc2, Site.FC2, self._feed_forward(x, adapters), x, adapters)

    def _feed_forward(self, x: Tensor, adapters: ServingAdapters | None) -> Tensor:
        states = self._inner_norm(x)
        inner = self._fc1(_flat(states)).view(*x.shape[:2], -1)
        if adapters is not None:
            adapters.lora(self._number, (Site.FC1,), states, inner[:, :, : self._inner].unsqueeze(2))
            if self._is_gated:
                adapters.lora(self._number, (Site.GATE,), states, inner[:, :, self._inner :].unsqueeze(2))
        if self._is_gated:
            return self._activation(inner[:, :, self._inner :]) * inner[:, :, : self._inner]
        return self._activation(inner)

    def _close(self, dense: Dense, site: Site, x: Tensor, residual: Tensor, adapters: ServingAdapters | None) -> Tensor:
        """A sub-layer's end: dense, residual, adapters."""
        total = dense.plus(_flat(x), _flat(residual)).view(residual.shape)
        if adapters is not None:
            adapters.lora(self._number, (site,), x, total.unsqueeze(2))
        return total


def _plain(q: Tensor, k: Tensor, v: Tensor, reach: Tensor) -> Tensor:
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    context = F.scaled_dot_product_attention(q, k, v, attn_mask=reach, enable_gqa=q.shape[1] != k.shape[1])
    return context.transpose(1, 2)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Padding lies behind what is real, and nobody looks ahead."""
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    shared = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared).transpose(1, 2)


def _dense(layer: DecoderLayer, *sites: Site) -> Dense:
    """One linear layer that computes those of all the sites side by side."""
    parts = [_with_bias(*(getattr(getattr(layer, site.value), name) for name in ("weight", "bias"))) for site in sites]
    return make_dense(torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts]))


def _with_bias(weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return weight, weight.new_zeros(len(weight)) if bias is None else bias


def _flat(x: Tensor) -> Tensor:
    """[B, T, width] -> [B * T, width], contiguous."""
    return x.reshape(-1, x.shape[-1]).contiguous()
