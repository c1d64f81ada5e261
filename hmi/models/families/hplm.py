"""The common base of all hPLMs: lower layers on 3-token windows, upper layers that take adapters.

The parts follow the HMI paper (arXiv 2504.17449): `lower` computes the state of a window's own token, which a knowledge
tree stores as the window's row; `merge` puts looked-up rows back into a sequence; `upper` is all that runs for a
sequence whose windows were found. With k = 0, `embed` and `upper` are the ordinary model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmi.adapters.maths import NoAdapters, TrainingAdapters
from hmi.errors import Corrupt
from hmi.models.layers import ACTIVATIONS, Rotary, RowEstimator, attend
from hmi.spec import Family, HPLMSpec, Site

WINDOW = 3


class TransformerLayer(nn.Module):
    """The linear layers and the attention of one transformer layer, lower or upper."""

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    o: nn.Linear
    fc1: nn.Linear
    fc2: nn.Linear
    gate: nn.Linear

    def __init__(self, spec: HPLMSpec, number: int) -> None:
        super().__init__()
        self.number = number
        self.heads, self.key_heads = spec.heads, spec.key_heads
        self._activation = ACTIVATIONS[spec.activation]
        for site in spec.sites:
            setattr(self, site.value, nn.Linear(*spec.site_shape(site), bias=spec.family is not Family.LLAMA))

    def linear(self, site: Site) -> nn.Linear:
        layer: nn.Linear = getattr(self, site.value)
        return layer

    def project(self, site: Site, x: Tensor, adapters: TrainingAdapters) -> Tensor:
        """Apply the linear layer at `site` and the adapters' LoRA: [B, T, in] -> [B, T, out]."""
        y: Tensor = self.linear(site)(x)
        delta = adapters.lora(self.number, site, x)
        return y if delta is None else y + delta

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, rotary: Rotary | None = None) -> Tensor:
        """q [B, T, heads * size], k and v [B, S, key heads * size], mask as for `attend` -> [B, T, heads * size]."""
        queries, keys, values = _split(q, self.heads), _split(k, self.key_heads), _split(v, self.key_heads)
        if rotary is not None:
            queries, keys = rotary(queries), rotary(keys)
        return attend(queries, keys, values, mask).transpose(1, 2).flatten(2)


def _split(x: Tensor, heads: int) -> Tensor:
    """[B, T, heads * size] -> [B, heads, T, size]"""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


class Embeddings(nn.Module):
    """Token embeddings, and position embeddings unless positions are rotary."""

    def __init__(self, spec: HPLMSpec) -> None:
        super().__init__()
        self.word = nn.Parameter(torch.empty(spec.vocab_size, spec.hidden_size))
        if spec.rope_theta is None:
            self.position = nn.Parameter(torch.empty(spec.max_positions, spec.hidden_size))

    def forward(self, ids: Tensor, position: Tensor | None) -> Tensor:
        """ids [B, T], position [T, H] -> [B, T, H]"""
        embedded = F.embedding(ids, self.word)
        return embedded if position is None else embedded + position


class _Window(nn.Module):
    """The weights that lower layers have in addition to the ordinary model's."""

    def __init__(self, spec: HPLMSpec) -> None:
        super().__init__()
        if spec.rope_theta is None:
            # Window-local positions, so that a row fits every place in a sequence.
            self.position = nn.Parameter(torch.empty(WINDOW, spec.hidden_size))
        # From the last lower layer's state to the row, fitted to the full model's state. Looked-up rows include it.
        self.projection = nn.Linear(spec.hidden_size, spec.hidden_size)


class _Correction(nn.Module):
    """Added to a row for its position in the sequence."""

    def __init__(self, spec: HPLMSpec) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(spec.max_positions, spec.hidden_size))


class HPLM(nn.Module, ABC):
    """One hPLM. Parameters have the names of the tensors in a base artifact's `model.safetensors`."""

    def __init__(self, spec: HPLMSpec, embeddings: Embeddings, layer: type[TransformerLayer]) -> None:
        super().__init__()
        if spec.activation not in ACTIVATIONS:
            raise Corrupt(f"activation {spec.activation!r} is not one of {', '.join(sorted(ACTIVATIONS))}")
        self.spec = spec
        self.embeddings = embeddings
        self.layers = nn.ModuleList(layer(spec, number) for number in range(spec.layers))
        self.learns_positions = spec.rope_theta is None  # otherwise attention rotates by positions
        if spec.k:
            self.window = _Window(spec)
            if self.learns_positions:
                self.correction = _Correction(spec)
        if spec.estimator_size:
            self.estimator = RowEstimator(spec.hidden_size, spec.estimator_size)
        self._no_adapters = NoAdapters()

    @property
    def dtype(self) -> torch.dtype:
        return self.embeddings.word.dtype

    @property
    def device(self) -> torch.device:
        return self.embeddings.word.device

    @abstractmethod
    def lower(self, windows: Tensor, delta: TrainingAdapters | None = None) -> Tensor:
        """Compute the rows of n-grams, [n, H]. Needs k > 0. The last lower layer runs for the rows' own tokens alone.

        Args:
            windows: int64 [n, 3], in the order of keys (`hmi.knowledge.ngrams`), with -1 for an absent neighbour.
            delta: Of the domain whose rows these are; None for the base model's own rows.
        """

    def embed(self, ids: Tensor) -> Tensor:
        """The part below the layers when k = 0: ids int64 [B, T] -> [B, T, H]."""
        position = self.embeddings.position[: ids.shape[1]] if self.learns_positions else None
        embedded: Tensor = self.embeddings(ids, position)
        return embedded

    def merge(self, rows: Tensor) -> Tensor:
        """Add the correction for their positions to looked-up rows [B, T, H] -> [B, T, H], the input of `upper`."""
        return rows + self.correction.position[: rows.shape[1]] if self.learns_positions else rows

    def upper(self, hidden: Tensor, mask: Tensor, adapters: TrainingAdapters | None = None) -> Tensor:
        """Run layers k.. on hidden [B, T, H] with mask bool [B, T] (True = a real token) -> [B, T, H]."""
        for states in self._run(range(self.spec.k, self.spec.layers), hidden, mask, adapters):
            hidden = states
        return self._final_norm(hidden)

    def upper_states(self, hidden: Tensor, mask: Tensor, adapters: TrainingAdapters | None = None) -> Iterator[Tensor]:
        """Yield the input of the upper layers and the output of each, the last one normed: [B, T, H] each."""
        yield hidden
        last = self.spec.layers - 1
        for number, states in enumerate(self._run(range(self.spec.k, last + 1), hidden, mask, adapters), self.spec.k):
            yield self._final_norm(states) if number == last else states

    def full_lower(self, ids: Tensor, mask: Tensor, adapters: TrainingAdapters | None = None) -> Tensor:
        """Run the ordinary model's first k layers: ids [B, T] -> [B, T, H], the target of training on windows."""
        hidden = self.embed(ids)
        for states in self._run(range(self.spec.k), hidden, mask, adapters):
            hidden = states
        return hidden

    @abstractmethod
    def _run(self, numbers: range, hidden: Tensor, mask: Tensor, adapters: TrainingAdapters | None) -> Iterator[Tensor]:
        """Yield the output of each of these layers, [B, T, H]."""

    def _final_norm(self, hidden: Tensor) -> Tensor:
        return hidden
