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
    estimator: ServedEstimator | None  # of the base's own rows, where it brings one

    @property
    def pooler(self) -> Callable[[Tensor], Tensor] | None:
        """The base's own pooler of first tokens `[B, H]` -> `[B, H]`, where it has one."""

    @property
    def decoder(self) -> ServedDecoder:
        """The model, as one that generates text. Raises `InvalidInput` for an encoder."""

    def unfused_layers(self, *, first_only: bool) -> range:
        """Layers that apply the adapters of q apart from those of k and v."""

    def lower(self, windows: Tensor, delta: ServingAdapters | None = None) -> Tensor:
        """The rows of n-grams: windows int64 `[n, 3]`, as keys hold them, with -1 for an absent neighbour -> `[n, H]`.

        Needs k > 0. `delta` is what the windows' domain changes in the lower layers.
        """

    def embed(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """k = 0's lower part: ids, and positions if they do not count from 0, int64 `[B, T]` -> `[B, T, H]`."""

    def merge(self, rows: Tensor, positions: Tensor | None = None) -> Tensor:
        """Looked-up rows `[B, T, H]` as the upper layers take them: with the correction for their position."""

    def upper(
        self,
        hidden: Tensor,
        mask: Tensor | None = None,
        adapters: ServingAdapters | None = None,
        *,
        first_only: bool = False,
    ) -> Tensor:
        """Layers k.. on hidden `[B, T, H]` -> `[B, T, H]`, or `[B, 1, H]` of the first tokens.

        Args:
            mask: bool `[B, T]`, True = a real token; None where all are.
            adapters: Made for these rows, and for the same `first_only`.
            first_only: Only the first tokens' states are used.
        """


class ServedDecoder(ServedModel, Protocol):
    """A model that generates text: `prefill` reads a sequence once, `decode` adds one token in each step."""

    def prefill(
        self, hidden: Tensor, mask: Tensor, pages: PagedKvCache, places: Tensor, adapters: ServingAdapters | None = None
    ) -> Tensor:
        """Run whole sequences and store their keys and values.

        Args:
            hidden: `[B, T, H]`, from `embed` or `merge`; what lies behind a sequence's end is ignored.
            mask: bool `[B, T]`, True = a real token.
            places: int64 `[n]`, where in the pages each of the n real tokens is stored.

        Returns:
            `[B, T, H]`, normed.
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
            hidden: `[B, 1, H]`, from `embed` or `merge`.
            positions: int64 `[B]`, of the new tokens: how many tokens each sequence had before.
            places: int64 `[B]`, where in the pages the new tokens are stored.
            parts: All that each sequence holds, the new token included.

        Returns:
            `[B, 1, H]`, normed.
        """

    def logits(self, states: Tensor) -> Tensor:
        """The next token's, from normed states: `[n, H]` -> `[n, vocabulary]`."""
