"""A model that consists of the places of adapters only, for tests of their maths."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hmi.adapters.maths import QKV, Norm, ServingAdapters, TrainingAdapters
from hmi.spec import HPLMSpec, Placement, Site

__all__ = ["TinyModel"]


class TinyModel:
    """Calls adapters in the order of a real model; a mean over the tokens replaces attention."""

    def __init__(self, spec: HPLMSpec) -> None:
        torch.manual_seed(0)
        self._layers = spec.layers
        self.linears = {site: nn.Linear(*spec.site_shape(site)) for site in spec.sites}
        self.norms = {place: nn.LayerNorm(spec.hidden_size) for place in Placement}
        for norm in self.norms.values():
            nn.init.normal_(norm.weight, 1, 0.3)
            nn.init.normal_(norm.bias, 0, 0.3)
        self.dense = nn.Linear(spec.hidden_size, spec.hidden_size)

    @torch.inference_mode()
    def run(self, x: Tensor, maths: TrainingAdapters) -> Tensor:
        """Run one adapter for all rows as training does: every site alone, for every token."""
        for layer in range(self._layers):
            q, k, v = (self._linear(maths, layer, site, x) for site in QKV)
            attended = self._linear(maths, layer, Site.O, _attend(q, k, v))
            middle = self._close(maths, layer, Placement.ATTENTION, attended, x)
            inner = torch.tanh(self._linear(maths, layer, Site.FC1, middle))
            x = self._close(maths, layer, Placement.OUTPUT, self._linear(maths, layer, Site.FC2, inner), middle)
        return x

    @torch.inference_mode()
    def run_batch(self, x: Tensor, adapters: ServingAdapters, *, first_only: bool = False) -> Tensor:
        """Run each row's own adapter as serving does: q, k and v together, everything added in place."""
        for layer in range(self._layers):
            parts = torch.stack([self.linears[site](x) for site in QKV], 2)  # [B, T, 3, H]
            if first_only and layer == self._layers - 1:
                adapters.lora(layer, QKV[1:], x, parts[:, :, 1:])
                adapters.lora(layer, QKV[:1], x[:, :1].contiguous(), parts[:, :1, :1])
            else:
                adapters.lora(layer, QKV, x, parts)
            q, k, v = parts.unbind(2)
            mixed = _attend(q, k, v)
            if first_only and layer == self._layers - 1:
                mixed, x = mixed[:, :1].contiguous(), x[:, :1].contiguous()
            middle = self._close_batch(adapters, layer, Placement.ATTENTION, Site.O, mixed, x)
            inner = self.linears[Site.FC1](middle)
            if adapters.has_lora(layer, Site.FC1):
                adapters.lora(layer, (Site.FC1,), middle, inner.unsqueeze(2))
            x = self._close_batch(adapters, layer, Placement.OUTPUT, Site.FC2, torch.tanh(inner), middle)
        return x

    def pooler(self, first: Tensor) -> Tensor:
        return torch.tanh(self.dense(first))

    def _linear(self, maths: TrainingAdapters, layer: int, site: Site, x: Tensor) -> Tensor:
        y: Tensor = self.linears[site](x)
        delta = maths.lora(layer, site, x)
        return y if delta is None else y + delta

    def _close(self, maths: TrainingAdapters, layer: int, place: Placement, hidden: Tensor, residual: Tensor) -> Tensor:
        norm: Norm = self.norms[place]
        return norm(maths.bottleneck(layer, place, hidden, residual, norm) + residual)

    def _close_batch(
        self, adapters: ServingAdapters, layer: int, place: Placement, site: Site, x: Tensor, residual: Tensor
    ) -> Tensor:
        hidden: Tensor = self.linears[site](x)
        norm: Norm = self.norms[place]
        if adapters.reads_hidden(layer, place):
            adapters.lora(layer, (site,), x, hidden.unsqueeze(2))
            total = hidden + residual
            adapters.bottleneck(layer, place, total, hidden, norm)
        else:
            total = hidden + residual
            adapters.lora(layer, (site,), x, total.unsqueeze(2))
            adapters.bottleneck(layer, place, total, None, norm)
        return norm(total)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q + (torch.tanh(k) * v).mean(1, keepdim=True)
