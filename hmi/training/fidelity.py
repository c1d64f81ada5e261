"""How far an hPLM's states are from those of an ordinary model, by default the one that its own layers are without
windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters.heads import mean_pool
from hmi.adapters.maths import AdapterMaths
from hmi.models.loader import HPLM
from hmi.training.states import LowerStates
from hmi.training.teacher import Teacher

__all__ = ["Fidelity", "compare", "measure_fidelity", "state_pairs"]

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Relative errors |ours - full| / |full| on text that was not learnt from.

    Attributes:
        layers: Over all tokens: of what the upper layers are given, and of each upper layer's states.
        pooled: Of the mean over each text of the last layer's states.
    """

    layers: tuple[float, ...]
    pooled: float

    @property
    def lower(self) -> float:
        """Of what the upper layers are given."""
        return self.layers[0]

    @property
    def upper(self) -> float:
        """Of the last layer's states."""
        return self.layers[-1]


@torch.no_grad()
def measure_fidelity(
    model: HPLM,
    sequences: Sequence[NDArray[np.int64]],
    delta: AdapterMaths | None = None,
    *,
    teacher: Teacher | None = None,
) -> Fidelity:
    """With rows rounded as stored ones are, and a domain's `delta` in them.

    Args:
        teacher: To compare with; None is the model's own layers without windows, which is the
            pretrained model as long as nobody changed them.
    """
    teacher = teacher or Teacher(model)
    return compare(
        (list(model.upper_states(merged, mask, teacher.adapters)), teacher.upper(full, mask), mask)
        for full, merged, mask in state_pairs(model, sequences, delta, teacher=teacher)
    )


def compare(batches: Iterable[tuple[Sequence[Tensor], Sequence[Tensor], Tensor]]) -> Fidelity:
    """
    Args:
        batches: What the upper layers are given and each of them gives, ours and the full model's, `[B, T, H]` each;
            and their mask. At least one.
    """
    sums = []
    for ours, wanted, mask in batches:
        pairs = [(a[mask].float(), b[mask].float()) for a, b in zip(ours, wanted, strict=True)]
        pairs.append((mean_pool(ours[-1].float(), mask), mean_pool(wanted[-1].float(), mask)))
        sums.append(torch.tensor([[float((a - b).square().sum()), float(b.square().sum())] for a, b in pairs]).double())
    errors, sizes = torch.stack(sums).sum(0).T  # squared, of each layer and of the pooled states
    *layers, pooled = (errors / sizes).sqrt().tolist()
    return Fidelity(tuple(layers), pooled)


@torch.no_grad()
def state_pairs(
    model: HPLM,
    sequences: Sequence[NDArray[np.int64]],
    delta: AdapterMaths | None = None,
    *,
    teacher: Teacher | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """In batches of like length: the full model's states and the merged rows `[B, T, H]`, and their mask."""
    teacher = teacher or Teacher(model)
    ordered = sorted(sequences, key=len)
    states = LowerStates(model, ordered, delta)
    for start in range(0, len(ordered), _BATCH):
        merged, mask = states.batch(range(start, min(start + _BATCH, len(ordered))))
        ids = torch.zeros(mask.shape, dtype=torch.int64, device=mask.device)
        ids[mask] = torch.from_numpy(np.concatenate(ordered[start : start + _BATCH])).to(mask.device)
        yield teacher.lower(ids, mask), merged, mask
