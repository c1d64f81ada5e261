"""The serving forward of BERT: batches of many tenants' adapters, with weights arranged for speed.

It equals `HBert` without gradients: q, k and v in one product, activations and residuals fused into the products where
the device can, adapters added in place. States are a flat [n, H] of all tokens; on a CPU n is padded (see `pad_rows`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hmi.adapters.maths import QKV, Norm, ServingAdapters
from hmi.errors import InvalidInput
from hmi.models.families.bert import BertLayer, HBert
from hmi.models.families.protocol import ServedDecoder
from hmi.models.layers import ACTIVATIONS, ServedEstimator, join_dense, pad_rows
from hmi.spec import Placement, Site

_MIDDLE = 1  # of a window (t-1, t, t+1)
_FIRST = 0  # of a sequence


class ServedBert:
    """A `ServedModel` of an hBERT. It takes over the tensors of `model`, which must not be used afterwards."""

    def __init__(self, model: HBert) -> None:
        self.spec = model.spec
        self.dtype = model.dtype
        self.device = model.device
        self._embeddings = model.embeddings
        self._layers = [_ServedLayer(layer, self.spec.activation) for layer in model.transformer_layers]
        if self.spec.has_pooler:
            self._pooler = join_dense(model.pooler)
        if self.spec.k:
            self._window_position = model.window.position
            self._projection = join_dense(model.window.projection)
            self._correction = model.correction.position
        self.estimator = ServedEstimator(model.estimator) if self.spec.estimator_size else None

    @property
    def pooler(self) -> Callable[[Tensor], Tensor] | None:
        return self._pool if self.spec.has_pooler else None

    @property
    def decoder(self) -> ServedDecoder:
        raise InvalidInput("an encoder generates no text", param="model")

    def unfused_layers(self, *, first_only: bool) -> range:
        return range(self.spec.layers - 1, self.spec.layers) if first_only else range(0)

    def lower(self, windows: Tensor, delta: ServingAdapters | None = None) -> Tensor:
        mask = _additive(windows >= 0, self.dtype)  # [n, 1, 1, 3]
        x = pad_rows(self._embeddings(windows.clamp(min=0), self._window_position).flatten(0, 1))  # [n * 3 or more, H]
        for number in range(self.spec.k):
            last = number == self.spec.k - 1
            x = self._layers[number](x, windows.shape, mask, delta, only=_MIDDLE if last else None)
        return self._projection(x)[: len(windows)]  # [n, H]

    def embed(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        table = self._embeddings.position
        embedded: Tensor = self._embeddings(ids, table[: ids.shape[1]] if positions is None else table[positions])
        return embedded

    def merge(self, rows: Tensor, positions: Tensor | None = None) -> Tensor:
        return rows + (self._correction[: rows.shape[1]] if positions is None else self._correction[positions])

    def upper(
        self,
        hidden: Tensor,
        mask: Tensor | None = None,
        adapters: ServingAdapters | None = None,
        *,
        first_only: bool = False,
    ) -> Tensor:
        shape = hidden.shape[:2]
        tokens = shape[0] * shape[1]
        x = pad_rows(hidden.reshape(tokens, -1))  # [B * T or more, H]
        weights = None if mask is None else _additive(mask, self.dtype)
        for number in range(self.spec.k, self.spec.layers):
            only = _FIRST if first_only and number == self.spec.layers - 1 else None
            x = self._layers[number](x, shape, weights, adapters, only=only)
        return x[: shape[0]].unsqueeze(1) if first_only else x[:tokens].view(*shape, -1)

    def _pool(self, first: Tensor) -> Tensor:
        return torch.tanh(self._pooler(first.contiguous()))  # [B, H]


class _ServedLayer:
    def __init__(self, layer: BertLayer, activation: str) -> None:
        self._number = layer.number
        self._heads = layer.heads
        self._activation = activation
        self._hidden = layer.q.out_features
        self._qkv = join_dense(layer.q, layer.k, layer.v)
        self._o = join_dense(layer.o)
        self._fc1 = join_dense(layer.fc1)
        self._fc2 = join_dense(layer.fc2)
        self._attention_norm: Norm = layer.attention_norm
        self._output_norm: Norm = layer.output_norm

    def __call__(
        self, x: Tensor, shape: tuple[int, ...], mask: Tensor | None, adapters: ServingAdapters | None, only: int | None
    ) -> Tensor:
        """Run the layer: x [n, H], n >= B * T, padded behind the real tokens -> [n, H].

        Args:
            mask: [B, 1, 1, T], added to attention's scores.
            only: Compute this token of each sequence alone -> [B or more, H].
        """
        batch, tokens = shape  # [B, T]
        real = batch * tokens
        qkv = self._qkv(x)[:real].view(batch, tokens, 3, self._heads, -1)  # [B, T, 3, heads, size]
        if adapters is not None:
            parts = qkv.view(batch, tokens, 3, self._hidden)  # [B, T, 3, H]
            states = x[:real].view(batch, tokens, -1)
            if only is None:
                adapters.lora(self._number, QKV, states, parts)
            else:
                adapters.lora(self._number, QKV[1:], states, parts[:, :, 1:])
                first = states[:, only : only + 1].contiguous()
                adapters.lora(self._number, QKV[:1], first, parts[:, only : only + 1, :1])
        q, k, v = (qkv[:, :, part].transpose(1, 2) for part in range(3))  # [B, heads, T, size]
        if only is not None:
            q = q[:, :, only : only + 1]
            x = pad_rows(x[:real].view(batch, tokens, -1)[:, only])
            real, tokens = batch, 1
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # [B, heads, T or 1, size]
        context = pad_rows(context.transpose(1, 2).reshape(real, -1))  # [B * T or B or more, H]
        computed = (batch, tokens)
        x = self._finish(Placement.ATTENTION, context, x, computed, adapters)
        return self._finish(Placement.OUTPUT, self._inner(x, computed, adapters), x, computed, adapters)

    def _inner(self, x: Tensor, shape: tuple[int, int], adapters: ServingAdapters | None) -> Tensor:
        if adapters is None or not adapters.has_lora(self._number, Site.FC1):
            return self._fc1.activated(x, self._activation)
        inner = self._fc1(x)
        adapters.lora(self._number, (Site.FC1,), _rows(x, shape), _rows(inner, shape).unsqueeze(2))
        return ACTIVATIONS[self._activation](inner)

    def _finish(
        self, place: Placement, x: Tensor, residual: Tensor, shape: tuple[int, int], adapters: ServingAdapters | None
    ) -> Tensor:
        """Finish a sub-layer: dense, adapters, residual, norm. x [n, in], residual [n, H] -> [n, H]"""
        if place is Placement.ATTENTION:
            dense, site, norm = self._o, Site.O, self._attention_norm
        else:
            dense, site, norm = self._fc2, Site.FC2, self._output_norm
        if adapters is None:
            return norm(dense.plus(x, residual))
        hidden: Tensor | None = None
        if adapters.reads_hidden(self._number, place):
            hidden = dense(x)
            adapters.lora(self._number, (site,), _rows(x, shape), _rows(hidden, shape).unsqueeze(2))
            total = hidden + residual
        else:
            total = dense.plus(x, residual)
            adapters.lora(self._number, (site,), _rows(x, shape), _rows(total, shape).unsqueeze(2))
        adapters.bottleneck(
            self._number, place, _rows(total, shape), None if hidden is None else _rows(hidden, shape), norm
        )
        return norm(total)


def _rows(x: Tensor, shape: tuple[int, int]) -> Tensor:
    """View the real tokens of a flat [n, width] as [B, T, width]."""
    return x[: shape[0] * shape[1]].view(*shape, -1)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what attention adds to its scores: bool [B, T] -> [B, 1, 1, T]."""
    weights = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)
    return weights[:, None, None, :]
