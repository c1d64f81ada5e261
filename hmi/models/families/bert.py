"""hBERT: BERT as an hPLM. A window is (t-1, t, t+1), and its row is the middle token's state."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmi.adapters.maths import TrainingAdapters
from hmi.models.families.hplm import HPLM, Embeddings, TransformerLayer
from hmi.spec import HPLMSpec, Placement, Site

_MIDDLE = 1  # of a window


class _BertEmbeddings(Embeddings):
    def __init__(self, spec: HPLMSpec) -> None:
        super().__init__(spec)
        self.token_type = nn.Parameter(torch.empty(spec.type_vocab_size, spec.hidden_size))
        self.norm = nn.LayerNorm(spec.hidden_size, eps=spec.layer_norm_eps)

    def forward(self, ids: Tensor, position: Tensor | None) -> Tensor:
        """ids [B, T], position [T, H] -> [B, T, H]; every token has type 0."""
        type_0 = self.token_type[0]
        added = type_0 if position is None else position + type_0
        normed: Tensor = self.norm(F.embedding(ids, self.word) + added)
        return normed


class BertLayer(TransformerLayer):
    """A transformer layer with norms behind attention and feed-forward."""

    def __init__(self, spec: HPLMSpec, number: int) -> None:
        super().__init__(spec, number)
        self.attention_norm = nn.LayerNorm(spec.hidden_size, eps=spec.layer_norm_eps)
        self.output_norm = nn.LayerNorm(spec.hidden_size, eps=spec.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor, adapters: TrainingAdapters, only: int | None = None) -> Tensor:
        """x [B, T, H], mask bool [B, T] -> [B, T, H], or [B, 1, H] of the token `only`."""
        # Contiguous: a linear layer on a strided slice runs as a product per row, and copies the weight for each.
        queries = x if only is None else x[:, only : only + 1].contiguous()  # [B, T or 1, H]
        context = self.attend(
            self.project(Site.Q, queries, adapters),
            self.project(Site.K, x, adapters),
            self.project(Site.V, x, adapters),
            mask[:, None, None, :],
        )
        attended = self.project(Site.O, context, adapters)  # [B, T or 1, H]
        attended = adapters.bottleneck(self.number, Placement.ATTENTION, attended, queries, self.attention_norm)
        middle: Tensor = self.attention_norm(attended + queries)
        inner = self._activation(self.project(Site.FC1, middle, adapters))  # [B, T or 1, inner]
        output = self.project(Site.FC2, inner, adapters)
        output = adapters.bottleneck(self.number, Placement.OUTPUT, output, middle, self.output_norm)
        result: Tensor = self.output_norm(output + middle)
        return result


class HBert(HPLM):
    def __init__(self, spec: HPLMSpec) -> None:
        super().__init__(spec, _BertEmbeddings(spec), BertLayer)
        if spec.has_pooler:
            self.pooler = nn.Linear(spec.hidden_size, spec.hidden_size)

    @property
    def transformer_layers(self) -> list[BertLayer]:
        return [layer for layer in self.layers if isinstance(layer, BertLayer)]

    def lower(self, windows: Tensor, delta: TrainingAdapters | None = None) -> Tensor:
        mask = windows >= 0  # [n, 3]
        x: Tensor = self.embeddings(windows.clamp(min=0), self.window.position)  # [n, 3, H]
        for number in range(self.spec.k):
            last = number == self.spec.k - 1
            x = self.layers[number](x, mask, delta or self._no_adapters, only=_MIDDLE if last else None)
        rows: Tensor = self.window.projection(x[:, 0])  # [n, H]
        return rows

    def pool(self, first: Tensor) -> Tensor:
        """BERT's pooler on first tokens [B, H] -> [B, H]."""
        dense: Tensor = self.pooler(first)
        return torch.tanh(dense)

    def _run(self, numbers: range, hidden: Tensor, mask: Tensor, adapters: TrainingAdapters | None) -> Iterator[Tensor]:
        for number in numbers:
            hidden = self.layers[number](hidden, mask, adapters or self._no_adapters)
            yield hidden
