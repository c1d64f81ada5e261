"""What the engine needs of a model family: `ServedModel` of each, `ServedDecoder` of those that generate text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from hmi.adapters.maths import ServingAdapters
from hmi.models.layers import PagedKvCache, PageGroup, ServedEstimator
from hmi.spec import HPLMSpec


class ServedModel(Protocol):
    """A model on its device, arranged for serving many tenants' adapters at once.

    A sequence runs through `embed` (k = 0) or `merge` (rows that were looked up or computed by `lower`), then `upper`.
    All methods run without gradients, on tensors of the model's device.
    """

    spec: HPLMSpec
    dtype: torch.dtype
    device: torch.device
    estimator: ServedEstimator | None  # of the base model's own rows

    @property
    def pooler(self) -> Callable[[Tensor], Tensor] | None:
        """The base model's pooler of first tokens, [B, H] -> [B, H]; None where it has none."""

    @property
    def decoder(self) -> ServedDecoder:
        """The model as a `ServedDecoder`. Raises `InvalidInput` for an encoder."""

    def unfused_layers(self, *, first_only: bool) -> range:
        """Return the layers that apply the adapters of q apart from those of k and v."""

    def lower(self, windows: Tensor, delta: ServingAdapters | None = None) -> Tensor:
        """Compute the rows of n-grams, [n, H]; `windows` and `delta` as in `HPLM.lower`. Needs k > 0."""

    def embed(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """The part below the layers when k = 0: ids int64 [B, T], positions [B, T] (by default from 0) -> [B, T, H]."""

    def merge(self, rows: Tensor, positions: Tensor | None = None) -> Tensor:
        """Add the correction for their positions to looked-up rows [B, T, H] -> [B, T, H], the input of `upper`."""

    def upper(
        self,
        hidden: Tensor,
        mask: Tensor | None = None,
        adapters: ServingAdapters | None = None,
        *,
        first_only: bool = False,
    ) -> Tensor:
        """Run layers k.. on hidden [B, T, H] -> [B, T, H], or [B, 1, H] with `first_only`.

        Args:
            mask: bool [B, T], True = a real token; None where all are.
            adapters: Planned for these rows and for the same `first_only`.
            first_only: Only the first tokens' states are needed.
        """


class ServedDecoder(ServedModel, Protocol):
    """A model that generates text: `prefill` reads a sequence once, `decode` adds one token in each step."""

    def prefill(
        self, hidden: Tensor, mask: Tensor, pages: PagedKvCache, places: Tensor, adapters: ServingAdapters | None = None
    ) -> Tensor:
        """Run whole sequences and store their keys and values.

        Args:
            hidden: [B, T, H], from `embed` or `merge`; padding behind a sequence's end is ignored.
            mask: bool [B, T], True = a real token.
            places: int64 [n], where in the pages each of the n real tokens is stored.

        Returns normed states [B, T, H].
        """

    def decode(
        self,
        hidden: Tensor,
        positions: Tensor,
        pages: PagedKvCache,
        places: Tensor,
        parts: Sequence[PageGroup],
        adapters: ServingAdapters | None = None,
    ) -> Tensor:
        """Run one more token of each sequence and store its keys and values.

        Args:
            hidden: [B, 1, H], from `embed` or `merge`.
            positions: int64 [B], of the new tokens: how many tokens each sequence had before.
            places: int64 [B], where in the pages the new tokens are stored.
            parts: The pages of each sequence, which include the new token.

        Returns normed states [B, 1, H].
        """

    def logits(self, states: Tensor) -> Tensor:
        """Return the next token's logits from normed states: [n, H] -> [n, vocabulary]."""
