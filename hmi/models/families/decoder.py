"""hGPT: a decoder as an hPLM. A window is (t-2, t-1, t), and its row is the newest token's state.

GPT-2 and Llama share the structure and differ in norms, biases, positions (learned or rotary), the number of key
heads, and the gate of the feed-forward.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmi.adapters.maths import TrainingAdapters
from hmi.models.families.hplm import HPLM, WINDOW, Embeddings, TransformerLayer
from hmi.models.layers import Rotary, causal_mask
from hmi.spec import Family, HPLMSpec, Site

# A key holds a window as (t-1, t, t-2), see `hmi.knowledge.ngrams`. This puts it into the order of the text.
READING_ORDER = (2, 0, 1)


class _RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, with a float32 mean for every dtype (Zhang & Sennrich, 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps)
        return self.weight * scaled.to(x.dtype)


def _norm(spec: HPLMSpec) -> nn.Module:
    if spec.family is Family.LLAMA:
        return _RmsNorm(spec.hidden_size, spec.layer_norm_eps)
    return nn.LayerNorm(spec.hidden_size, eps=spec.layer_norm_eps)


class DecoderLayer(TransformerLayer):
    """A transformer layer with norms before attention and feed-forward."""

    def __init__(self, spec: HPLMSpec, number: int) -> None:
        super().__init__(spec, number)
        self._is_gated = Site.GATE in spec.sites
        self.attention_norm = _norm(spec)
        self.inner_norm = _norm(spec)

    def forward(
        self, x: Tensor, mask: Tensor, adapters: TrainingAdapters, rotary: Rotary | None, *, only_last: bool = False
    ) -> Tensor:
        """x [B, T, H] -> [B, T, H], or [B, 1, H] of the last token alone (`only_last`).

        Args:
            mask: bool [B, 1, T, T], the tokens (last dimension) that each token attends to.
            rotary: Of the tokens' positions; None where x includes positions.
        """
        normed = self.attention_norm(x)  # [B, T, H]
        residual, queries = (x[:, -1:].contiguous(), normed[:, -1:].contiguous()) if only_last else (x, normed)
        context = self.attend(
            self.project(Site.Q, queries, adapters),
            self.project(Site.K, normed, adapters),
            self.project(Site.V, normed, adapters),
            mask[:, :, -1:] if only_last else mask,
            rotary,
        )
        middle = residual + self.project(Site.O, context, adapters)  # [B, T or 1, H]
        normed = self.inner_norm(middle)
        inner = self.project(Site.FC1, normed, adapters)  # [B, T or 1, inner]
        if self._is_gated:
            inner = self._activation(self.project(Site.GATE, normed, adapters)) * inner
        else:
            inner = self._activation(inner)
        return middle + self.project(Site.FC2, inner, adapters)


class HGpt(HPLM):
    def __init__(self, spec: HPLMSpec) -> None:
        super().__init__(spec, Embeddings(spec), DecoderLayer)
        self.norm = _norm(spec)
        if not spec.tied:
            self.head = nn.Parameter(torch.empty(spec.vocab_size, spec.hidden_size))

    @property
    def transformer_layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    @property
    def head_weight(self) -> Tensor:
        """The weight of the language model's head, [vocabulary, H]."""
        return self.embeddings.word if self.spec.tied else self.head

    def lower(self, windows: Tensor, delta: TrainingAdapters | None = None) -> Tensor:
        ids = windows[:, READING_ORDER]  # [n, 3]
        x: Tensor = self.embeddings(ids.clamp(min=0), self.window.position if self.learns_positions else None)
        mask, rotary = causal_mask(ids >= 0), self._rotary(WINDOW)
        for number in range(self.spec.k):
            last = number == self.spec.k - 1
            x = self.layers[number](x, mask, delta or self._no_adapters, rotary, only_last=last)  # [n, 3 or 1, H]
        rows: Tensor = self.window.projection(x[:, 0])  # [n, H]
        return rows

    def logits(self, states: Tensor) -> Tensor:
        """The next token's logits from the output of `upper`: [..., H] -> [..., vocabulary]."""
        return F.linear(states, self.head_weight)

    def _run(self, numbers: range, hidden: Tensor, mask: Tensor, adapters: TrainingAdapters | None) -> Iterator[Tensor]:
        causal, rotary = causal_mask(mask), self._rotary(hidden.shape[1])
        for number in numbers:
            hidden = self.layers[number](hidden, causal, adapters or self._no_adapters, rotary)
            yield hidden

    def _final_norm(self, hidden: Tensor) -> Tensor:
        normed: Tensor = self.norm(hidden)
        return normed

    def _rotary(self, tokens: int) -> Rotary | None:
        if self.spec.rope_theta is None:
            return None
        positions = torch.arange(tokens, device=self.device)
        return Rotary.at(positions, self.spec.head_width, self.spec.rope_theta, self.dtype)
