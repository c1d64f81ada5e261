"""hBERT: BERT whose lower `k` layers see a 3-token window, and whose upper layers take adapters.

The three parts follow the HMI paper (arXiv 2504.17449): `lower` gives the state of a window's middle
token and is what a knowledge tree stores; `merge` puts looked-up rows back into a sequence; `upper` is
all that runs for a sequence whose windows were found. With k = 0 `embed` and `upper` are plain BERT.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmi.adapters.maths import NoAdapters, TrainingAdapters
from hmi.errors import Corrupt
from hmi.models.layers import ACTIVATIONS, RowEstimator
from hmi.spec import HPLMSpec, Placement, Site

__all__ = ["BertLayer", "HBert"]

_MIDDLE = 1  # of a window (t-1, t, t+1)


class _Embeddings(nn.Module):
    def __init__(self, spec: HPLMSpec) -> None:
        super().__init__()
        self.word = nn.Parameter(torch.empty(spec.vocab_size, spec.hidden_size))
        self.position = nn.Parameter(torch.empty(spec.max_positions, spec.hidden_size))
        self.token_type = nn.Parameter(torch.empty(spec.type_vocab_size, spec.hidden_size))
        self.norm = nn.LayerNorm(spec.hidden_size, eps=spec.layer_norm_eps)

    def forward(self, ids: Tensor, position: Tensor) -> Tensor:
        # ids [B, T], position [T, H] -> [B, T, H]; every token is of type 0
        normed: Tensor = self.norm(F.embedding(ids, self.word) + (position + self.token_type[0]))
        return normed


class BertLayer(nn.Module):
    """One transformer layer, lower or upper."""

    def __init__(self, spec: HPLMSpec, number: int) -> None:
        super().__init__()
        hidden, inner = spec.hidden_size, spec.intermediate_size
        self.number = number
        self.heads = spec.heads
        self._activation = ACTIVATIONS[spec.activation]
        self.q = nn.Linear(hidden, hidden)
        self.k = nn.Linear(hidden, hidden)
        self.v = nn.Linear(hidden, hidden)
        self.o = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=spec.layer_norm_eps)
        self.fc1 = nn.Linear(hidden, inner)
        self.fc2 = nn.Linear(inner, hidden)
        self.output_norm = nn.LayerNorm(hidden, eps=spec.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor, adapters: TrainingAdapters, only: int | None = None) -> Tensor:
        """x [B, T, H], mask bool [B, T] -> [B, T, H], or [B, 1, H] of the token `only`."""
        # Contiguous: a linear layer on a strided slice runs as a product per row, with the weight copied for each.
        asked = x if only is None else x[:, only : only + 1].contiguous()
        context = self._attend(
            self._project(self.q, Site.Q, asked, adapters),
            self._project(self.k, Site.K, x, adapters),
            self._project(self.v, Site.V, x, adapters),
            mask,
        )
        attended = self._project(self.o, Site.O, context, adapters)
        attended = adapters.bottleneck(self.number, Placement.ATTENTION, attended, asked, self.attention_norm)
        middle: Tensor = self.attention_norm(attended + asked)
        inner = self._activation(self._project(self.fc1, Site.FC1, middle, adapters))
        output = self._project(self.fc2, Site.FC2, inner, adapters)
        output = adapters.bottleneck(self.number, Placement.OUTPUT, output, middle, self.output_norm)
        result: Tensor = self.output_norm(output + middle)
        return result

    def _project(self, linear: nn.Linear, site: Site, x: Tensor, adapters: TrainingAdapters) -> Tensor:
        y: Tensor = linear(x)
        delta = adapters.lora(self.number, site, x)
        return y if delta is None else y + delta

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        batch, asked, hidden = q.shape

        def split(x: Tensor) -> Tensor:  # [B, T, H] -> [B, heads, T, H / heads]
            return x.view(batch, x.shape[1], self.heads, hidden // self.heads).transpose(1, 2)

        attention = _plain_attention if torch.is_grad_enabled() else F.scaled_dot_product_attention
        context = attention(split(q), split(k), split(v), attn_mask=mask[:, None, None, :])
        return context.transpose(1, 2).reshape(batch, asked, hidden)


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor) -> Tensor:
    """Attention by matrix products, for training: on a CPU the fused kernel's backward pass takes six times
    as long for sentences of a few dozen tokens.

    q, k, v [B, heads, T, size], attn_mask bool [B, 1, 1, T] -> [B, heads, T, size]
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # [B, heads, T, T]
    context: Tensor = scores.masked_fill(~attn_mask, -torch.inf).softmax(-1) @ v
    return context


class _Window(nn.Module):
    """What the lower layers have besides BERT's own weights.

    `position`: window-local positions, so that a row fits any place. `projection`: from the last lower
    layer's state to the row, fitted so that rows resemble what the full model has there; it costs nothing
    where rows are looked up.
    """

    def __init__(self, spec: HPLMSpec) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(3, spec.hidden_size))
        self.projection = nn.Linear(spec.hidden_size, spec.hidden_size)


class _Merge(nn.Module):
    """What is added to a looked-up row for standing at position t of its sequence."""

    def __init__(self, spec: HPLMSpec) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(spec.max_positions, spec.hidden_size))


class HBert(nn.Module):
    """One hBERT. Parameters carry the names of the tensors in a base artifact's `model.safetensors`."""

    def __init__(self, spec: HPLMSpec) -> None:
        super().__init__()
        if spec.activation not in ACTIVATIONS:
            raise Corrupt(f"activation {spec.activation!r} is not one of {', '.join(sorted(ACTIVATIONS))}")
        self.spec = spec
        self.embeddings = _Embeddings(spec)
        self.layers = nn.ModuleList(BertLayer(spec, number) for number in range(spec.layers))
        if spec.has_pooler:
            self.pooler = nn.Linear(spec.hidden_size, spec.hidden_size)
        if spec.k:
            self.window = _Window(spec)
            self.correction = _Merge(spec)
        if spec.estimator_size:
            self.estimator = RowEstimator(spec.hidden_size, spec.estimator_size)
        self._no_adapters = NoAdapters()

    @property
    def transformer_layers(self) -> list[BertLayer]:
        return [layer for layer in self.layers if isinstance(layer, BertLayer)]

    @property
    def dtype(self) -> torch.dtype:
        return self.embeddings.word.dtype

    @property
    def device(self) -> torch.device:
        return self.embeddings.word.device

    def lower(self, windows: Tensor, delta: TrainingAdapters | None = None) -> Tensor:
        """The rows of n-grams: windows int64 `[n, 3]` with -1 for an absent neighbour -> `[n, H]`.

        The last lower layer is computed for the middle token alone. Needs k > 0.

        Args:
            delta: Of the domain whose rows these are; None for the base model's own.
        """
        mask = windows >= 0  # [n, 3]
        x: Tensor = self.embeddings(windows.clamp(min=0), self.window.position)  # [n, 3, H]
        for number in range(self.spec.k):
            last = number == self.spec.k - 1
            x = self.layers[number](x, mask, delta or self._no_adapters, only=_MIDDLE if last else None)
        rows: Tensor = self.window.projection(x[:, 0])
        return rows

    def embed(self, ids: Tensor) -> Tensor:
        """k = 0's lower part: ids int64 `[B, T]` -> `[B, T, H]`."""
        embedded: Tensor = self.embeddings(ids, self.embeddings.position[: ids.shape[1]])
        return embedded

    def merge(self, rows: Tensor) -> Tensor:
        """Looked-up rows `[B, T, H]` as the upper layers want them: with the correction for their position."""
        return rows + self.correction.position[: rows.shape[1]]

    def upper(self, hidden: Tensor, mask: Tensor, adapters: TrainingAdapters | None = None) -> Tensor:
        """Layers k.. on hidden `[B, T, H]` with mask bool `[B, T]` (True = a real token) -> `[B, T, H]`."""
        for number in range(self.spec.k, self.spec.layers):
            hidden = self.layers[number](hidden, mask, adapters or self._no_adapters)
        return hidden

    def upper_states(self, hidden: Tensor, mask: Tensor, adapters: TrainingAdapters | None = None) -> Iterator[Tensor]:
        """What the upper layers are given and what each of them gives: `[B, T, H]` each."""
        yield hidden
        for number in range(self.spec.k, self.spec.layers):
            hidden = self.layers[number](hidden, mask, adapters or self._no_adapters)
            yield hidden

    def full_lower(self, ids: Tensor, mask: Tensor, adapters: TrainingAdapters | None = None) -> Tensor:
        """What the ordinary model has after its first k layers: ids `[B, T]` -> `[B, T, H]`.

        The reference that windows are made to agree with; never used in serving when k > 0.
        """
        hidden = self.embed(ids)
        for number in range(self.spec.k):
            hidden = self.layers[number](hidden, mask, adapters or self._no_adapters)
        return hidden

    def pool(self, first: Tensor) -> Tensor:
        """BERT's pooler on first tokens `[B, H]` -> `[B, H]`."""
        dense: Tensor = self.pooler(first)
        return torch.tanh(dense)
