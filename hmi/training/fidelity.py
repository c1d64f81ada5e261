"""How far an hPLM's states are from those of the ordinary model that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters.maths import AdapterMaths
from hmi.models.bert import HBert
from hmi.training.states import LowerStates

__all__ = ["Fidelity", "measure_fidelity", "state_pairs"]

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Relative errors |ours - full| / |full| over all tokens of text that was not learnt from.

    Attributes:
        lower: Of what the upper layers are given.
        upper: Of the last layer's states.
    """

    lower: float
    upper: float


@torch.no_grad()
def measure_fidelity(
    model: HBert, sequences: Sequence[NDArray[np.int64]], delta: AdapterMaths | None = None
) -> Fidelity:
    """Over all tokens of the sequences, with rows rounded as stored ones are, and a domain's `delta` in them."""
    errors, sizes = torch.zeros(2), torch.zeros(2)  # squared, of the lower and of the last states
    for full, merged, mask in state_pairs(model, sequences, delta):
        upper = model.upper(merged, mask), model.upper(full, mask)
        for place, (ours, reference) in enumerate(((merged, full), upper)):
            errors[place] += (ours.float() - reference.float())[mask].square().sum().cpu()
            sizes[place] += reference.float()[mask].square().sum().cpu()
    lower, last = (errors / sizes).sqrt().tolist()
    return Fidelity(lower, last)


@torch.no_grad()
def state_pairs(
    model: HBert, sequences: Sequence[NDArray[np.int64]], delta: AdapterMaths | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """In batches of like length: the full model's states and the merged rows `[B, T, H]`, and their mask."""
    ordered = sorted(sequences, key=len)
    states = LowerStates(model, ordered, delta)
    for start in range(0, len(ordered), _BATCH):
        merged, mask = states.batch(range(start, min(start + _BATCH, len(ordered))))
        ids = torch.zeros(mask.shape, dtype=torch.int64, device=mask.device)
        ids[mask] = torch.from_numpy(np.concatenate(ordered[start : start + _BATCH])).to(mask.device)
        yield model.full_lower(ids, mask), merged, mask
