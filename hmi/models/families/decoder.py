"""hGPT: a decoder whose lower `k` layers see a 3-token window (t-2, t-1, t), and whose upper layers take adapters.

The parts are those of hBERT: `lower` gives the state of a window's last token, `merge` puts looked-up rows back into a
sequence, `upper` is all that runs for a sequence whose windows were found; `logits` is the language model's head. With
k = 0 `embed`, `upper` and `logits` are the plain model. GPT-2 and Llama differ in data, not in structure: in norms,
biases, positions (learned or rotary), heads of keys and values, and the gate of the feed-forward.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmi.adapters.maths import NoAdapters, TrainingAdapters
from hmi.errors import Corrupt
from hmi.models.layers import ACTIVATIONS, Rotary, RowEstimator
from hmi.spec import Family, HPLMSpec, Site

__all__ = ["READING_ORDER", "WINDOW", "DecoderLayer", "HGpt", "RmsNorm", "causal_mask"]

WINDOW = 3
# A key holds a window as (t-1, t, t-2), see `hmi.knowledge.ngrams`; the layers read it in the order of the text.
READING_ORDER = (2, 0, 1)


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight; the mean in float32 whatever the dtype (Zhang & Sennrich, 2019)."""

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
        return RmsNorm(spec.hidden_size, spec.layer_norm_eps)
    return nn.LayerNorm(spec.hidden_size, eps=spec.layer_norm_eps)


def causal_mask(mask: Tensor) -> Tensor:
    """Which tokens each one sees: real ones up to itself. mask bool `[B, T]` -> bool `[B, 1, T, T]`."""
    tokens = mask.shape[1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=mask.device).tril()
    # A token that is not there sees itself, for a row of nothing has no softmax.
    itself = torch.eye(tokens, dtype=torch.bool, device=mask.device)
    return ((causal & mask[:, None, :]) | itself)[:, None]


class DecoderLayer(nn.Module):
    """One transformer layer, lower or upper: norms stand before attention and feed-forward."""

    def __init__(self, spec: HPLMSpec, number: int) -> None:
        super().__init__()
        self.number = number
        self.heads, self.key_heads = spec.heads, spec.key_heads
        self._activation = ACTIVATIONS[spec.activation]
        has_bias = spec.family is Family.GPT2
        for site in spec.sites:
            setattr(self, site.value, nn.Linear(*spec.site_shape(site), bias=has_bias))
        self._is_gated = Site.GATE in spec.sites
        self.attention_norm = _norm(spec)
        self.inner_norm = _norm(spec)

    def forward(
        self,
        x: Tensor,
        reach: Tensor,
        adapters: TrainingAdapters,
        rotary: Rotary | None = None,
        *,
        only_last: bool = False,
    ) -> Tensor:
        """
        Args:
            x: `[B, T, H]`.
            reach: bool `[B, 1, T, T]`: which tokens (last) each token sees.
            rotary: Of the tokens' positions; None where positions are in x already.
            only_last: Compute the last token alone.

        Returns:
            `[B, T, H]`, or `[B, 1, H]`.
        """
        normed = self.attention_norm(x)
        asked, asking = (x[:, -1:].contiguous(), normed[:, -1:].contiguous()) if only_last else (x, normed)
        context = self._attend(
            self.project(Site.Q, asking, adapters),
            self.project(Site.K, normed, adapters),
            self.project(Site.V, normed, adapters),
            reach[:, :, -1:] if only_last else reach,
            rotary,
        )
        middle = asked + self.project(Site.O, context, adapters)
        return middle + self._feed_forward(self.inner_norm(middle), adapters)

    def project(self, site: Site, x: Tensor, adapters: TrainingAdapters) -> Tensor:
        """The linear layer at `site` with the adapters' LoRA."""
        y: Tensor = getattr(self, site.value)(x)
        delta = adapters.lora(self.number, site, x)
        return y if delta is None else y + delta

    def _feed_forward(self, x: Tensor, adapters: TrainingAdapters) -> Tensor:
        inner = self.project(Site.FC1, x, adapters)
        if self._is_gated:
            inner = self._activation(self.project(Site.GATE, x, adapters)) * inner
        else:
            inner = self._activation(inner)
        return self.project(Site.FC2, inner, adapters)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, reach: Tensor, rotary: Rotary | None) -> Tensor:
        queries = self._split(q, self.heads)
        keys, values = self._split(k, self.key_heads), self._split(v, self.key_heads)
        if rotary is not None:
            queries, keys = rotary(queries), rotary(keys)
        if torch.is_grad_enabled():
            context = _plain_attention(queries, keys, values, reach)
        else:
            context = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=reach, enable_gqa=self.heads != self.key_heads
            )
        return context.transpose(1, 2).flatten(2)

    @staticmethod
    def _split(x: Tensor, heads: int) -> Tensor:
        """[B, T, heads * size] -> [B, heads, T, size]"""
        return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, reach: Tensor) -> Tensor:
    """Attention by matrix products, for training: see `bert`. q [B, heads, T, size], k, v fewer heads."""
    shared = q.shape[1] // k.shape[1]
    if shared > 1:
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    context: Tensor = scores.masked_fill(~reach, -torch.inf).softmax(-1) @ v
    return context


class _Embeddings(nn.Module):
    def __init__(self, spec: HPLMSpec) -> None:
        super().__init__()
        self.word = nn.Parameter(torch.empty(spec.vocab_size, spec.hidden_size))
        if spec.rope_theta is None:
            self.position = nn.Parameter(torch.empty(spec.max_positions, spec.hidden_size))


class _Window(nn.Module):
    """As hBERT's: window-local positions, where positions are learned, and a projection to the row."""

    def __init__(self, spec: HPLMSpec) -> None:
        super().__init__()
        if spec.rope_theta is None:
            self.position = nn.Parameter(torch.empty(WINDOW, spec.hidden_size))
        self.projection = nn.Linear(spec.hidden_size, spec.hidden_size)


class _Merge(nn.Module):
    """What is added to a looked-up row for standing at position t; rotary attention carries positions itself."""

    def __init__(self, spec: HPLMSpec) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(spec.max_positions, spec.hidden_size))


class HGpt(nn.Module):
    """One hGPT. Parameters carry the names of the tensors in a base artifact's `model.safetensors`."""

    def __init__(self, spec: HPLMSpec) -> None:
        super().__init__()
        if spec.activation not in ACTIVATIONS:
            raise Corrupt(f"activation {spec.activation!r} is not one of {', '.join(sorted(ACTIVATIONS))}")
        self.spec = spec
        self.embeddings = _Embeddings(spec)
        self.layers = nn.ModuleList(DecoderLayer(spec, number) for number in range(spec.layers))
        self.norm = _norm(spec)
        if not spec.tied:
            self.head = nn.Parameter(torch.empty(spec.vocab_size, spec.hidden_size))
        self._learns_positions = spec.rope_theta is None
        if spec.k:
            self.window = _Window(spec)
            if self._learns_positions:
                self.correction = _Merge(spec)
        if spec.estimator_size:
            self.estimator = RowEstimator(spec.hidden_size, spec.estimator_size)
        self._no_adapters = NoAdapters()

    @property
    def transformer_layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    @property
    def dtype(self) -> torch.dtype:
        return self.embeddings.word.dtype

    @property
    def device(self) -> torch.device:
        return self.embeddings.word.device

    def lower(self, windows: Tensor, delta: TrainingAdapters | None = None) -> Tensor:
        """The rows of n-grams: windows int64 `[n, 3]` as keys hold them, (t-1, t, t-2) with -1 for an absent
        neighbour -> `[n, H]`. The last lower layer is computed for the last token alone. Needs k > 0.

        Args:
            delta: Of the domain whose rows these are; None for the base model's own.
        """
        ids = windows[:, READING_ORDER]
        x = F.embedding(ids.clamp(min=0), self.embeddings.word)
        if self._learns_positions:
            x = x + self.window.position
        reach = causal_mask(ids >= 0)
        rotary = self._rotary(WINDOW)
        for number in range(self.spec.k):
            last = number == self.spec.k - 1
            x = self.layers[number](x, reach, delta or self._no_adapters, rotary, only_last=last)
        rows: Tensor = self.window.projection(x[:, 0])
        return rows

    def embed(self, ids: Tensor) -> Tensor:
        """k = 0's lower part: ids int64 `[B, T]` -> `[B, T, H]`."""
        embedded = F.embedding(ids, self.embeddings.word)
        return embedded + self.embeddings.position[: ids.shape[1]] if self._learns_positions else embedded

    def merge(self, rows: Tensor) -> Tensor:
        """Looked-up rows `[B, T, H]` as the upper layers want them: with the correction for their position."""
        return rows + self.correction.position[: rows.shape[1]] if self._learns_positions else rows

    def upper(self, hidden: Tensor, mask: Tensor, adapters: TrainingAdapters | None = None) -> Tensor:
        """Layers k.. and the last norm on hidden `[B, T, H]` with mask bool `[B, T]` (True = a real token)
        -> `[B, T, H]`."""
        hidden = self._run(range(self.spec.k, self.spec.layers), hidden, mask, adapters)
        normed: Tensor = self.norm(hidden)
        return normed

    def upper_states(self, hidden: Tensor, mask: Tensor, adapters: TrainingAdapters | None = None) -> Iterator[Tensor]:
        """What the upper layers are given and what each of them gives: `[B, T, H]` each, the last one's normed."""
        yield hidden
        last = self.spec.layers - 1
        for number, states in enumerate(self._each(range(self.spec.k, last + 1), hidden, mask, adapters), self.spec.k):
            yield self.norm(states) if number == last else states

    @property
    def head_weight(self) -> Tensor:
        """Of the language model's head, `[vocabulary, H]`."""
        return self.embeddings.word if self.spec.tied else self.head

    def logits(self, states: Tensor) -> Tensor:
        """The next token's, from what `upper` gave: `[..., H]` -> `[..., vocabulary]`."""
        return F.linear(states, self.head_weight)

    def full_lower(self, ids: Tensor, mask: Tensor, adapters: TrainingAdapters | None = None) -> Tensor:
        """What the ordinary model has after its first k layers: ids `[B, T]` -> `[B, T, H]`.

        The reference that windows are made to agree with; never used in serving when k > 0.
        """
        return self._run(range(self.spec.k), self.embed(ids), mask, adapters)

    def _run(self, numbers: range, hidden: Tensor, mask: Tensor, adapters: TrainingAdapters | None) -> Tensor:
        states = hidden
        for states in self._each(numbers, hidden, mask, adapters):  # noqa: B007 - the last one counts
            pass
        return states

    def _each(
        self, numbers: range, hidden: Tensor, mask: Tensor, adapters: TrainingAdapters | None
    ) -> Iterator[Tensor]:
        """After each of these layers."""
        reach, rotary = causal_mask(mask), self._rotary(hidden.shape[1])
        for number in numbers:
            hidden = self.layers[number](hidden, reach, adapters or self._no_adapters, rotary)
            yield hidden

    def _rotary(self, tokens: int) -> Rotary | None:
        if self.spec.rope_theta is None:
            return None
        positions = torch.arange(tokens, device=self.device)
        return Rotary.at(positions, self.spec.head_width, self.spec.rope_theta, self.dtype)
