"""The ordinary full model that an hPLM, or a domain's rows, are trained to agree with."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hmi.adapters import Adapter
from hmi.adapters.maths import NoAdapters, SingleAdapter, TrainingAdapters
from hmi.models.convert import load_pretrained
from hmi.models.families import HPLM
from hmi.spec import HPLMSpec
from hmi.training.lower import WindowBatch


class Teacher:
    """A model of any k whose layers read whole sequences.

    With an `adapter` on all layers it is a domain's own full model. The adapter's part below k is distilled; its part
    above k is also applied to the states that are compared with the teacher's.
    """

    def __init__(self, model: HPLM, adapter: Adapter | None = None) -> None:
        self.model = model
        self.adapters: TrainingAdapters = (
            NoAdapters() if adapter is None else SingleAdapter.of(adapter, model.device, model.dtype)
        )

    @classmethod
    def of_folder(
        cls,
        folder: Path,
        like: HPLMSpec,
        device: torch.device | str,
        dtype: torch.dtype,
        adapter: Adapter | None = None,
    ) -> Teacher:
        """The model of a transformers folder, for an hPLM of the spec `like`.

        Raises `InvalidInput` if the folder is not understood or of another shape, `AdapterRefused`.
        """
        if adapter is not None:
            adapter.validate(like.ordinary)
        return cls(load_pretrained(folder, like, device, dtype), adapter)

    def lower(self, ids: Tensor, mask: Tensor) -> Tensor:
        """States after the k lower layers: ids `[B, T]` -> `[B, T, H]`."""
        return self.model.full_lower(ids, mask, self.adapters)

    def upper(self, hidden: Tensor, mask: Tensor) -> list[Tensor]:
        """`hidden` `[B, T, H]`, and the states after every upper layer from there."""
        return list(self.model.upper_states(hidden, mask, self.adapters))

    @torch.no_grad()
    def states(self, batch: WindowBatch) -> list[Tensor]:
        """After the k lower layers, and after each upper one: `[B, T, H]` each."""
        return self.upper(self.lower(batch.ids, batch.mask), batch.mask)
