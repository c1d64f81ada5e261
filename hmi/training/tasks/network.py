"""The model that is trained: the frozen upper layers with an adapter and a head that learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hmi.models.families import HPLM
from hmi.training.lower import LowerStates, YieldHook
from hmi.training.tasks.fixed import FixedAdapter
from hmi.training.tasks.trainable import TrainableAdapter

__all__ = ["Network"]

_JUDGING_BATCH = 64
_TOKEN_STEP = 8


class Network:
    """`model` is frozen, `adapter` is trained or only evaluated; `yield_hook` is called after every evaluated batch."""

    def __init__(self, model: HPLM, adapter: TrainableAdapter | FixedAdapter, yield_hook: YieldHook) -> None:
        self.model = model
        self.adapter = adapter
        self._yield_hook = yield_hook

    @property
    def device(self) -> torch.device:
        return self.model.device

    def upper(self, states: LowerStates, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Last states `[B, T, H]` of the chosen sequences and their mask, bool `[B, T]`; gradients flow."""
        hidden, mask = _filled(*states.batch(chosen))
        return self.model.upper(hidden, mask, self.adapter.maths(self.model.dtype)), mask

    @torch.no_grad()
    def judged(self, states: LowerStates) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """All sequences in batches of like length: which they are, last states and mask, without gradients."""
        order = np.argsort(states.lengths, kind="stable").tolist()
        for start in range(0, len(order), _JUDGING_BATCH):
            chosen = order[start : start + _JUDGING_BATCH]
            yield chosen, *self.upper(states, chosen)
            self._yield_hook()


def _filled(hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """On a CPU `[B, T, H]` and `[B, T]` with padding up to a few lengths: oneDNN prepares itself anew for every shape
    that it meets, on some processors for longer than a batch of short sentences takes."""
    missing = -mask.shape[1] % _TOKEN_STEP if mask.device.type == "cpu" else 0
    return (F.pad(hidden, (0, 0, 0, missing)), F.pad(mask, (0, missing))) if missing else (hidden, mask)
