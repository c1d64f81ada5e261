"""A training's state on disk, so that one that was stopped goes on, to the bit, as if it had not been.

One safetensors file: the weights, Adam's two moments and step, the best epoch's weights, the random generator's state;
in its metadata the counters and the training's identity. It appears whole or not at all.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hmi.training.loop.state import TrainState

__all__ = ["Checkpoint"]

_log = logging.getLogger(__name__)

_METADATA_KEY = "hmi_training"
_SECONDS = 5.0  # between two saves within an epoch
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Checkpoint:
    """The checkpoint of one training at `path`.

    Args:
        identity: Digest of all that decides the result; a file with another one is not taken over.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self._identity = identity
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last save is a few seconds ago."""
        return time.monotonic() - self._saved >= _SECONDS

    def save(self, course: TrainState, weights: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> None:
        """Replace what is there. Raises `OSError` where it cannot be written."""
        tensors = {"order": course.order}
        for place, weight in enumerate(weights):
            tensors[f"weight.{place}"] = weight.detach()
            for name in _MOMENTS if optimizer.state.get(weight) else ():
                tensors[f"{name}.{place}"] = optimizer.state[weight][name]
        for place, weight in enumerate(course.best or ()):
            tensors[f"best.{place}"] = weight
        metadata = {_METADATA_KEY: json.dumps({"identity": self._identity, "course": course.plain()})}
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            save_file({name: each.contiguous().cpu() for name, each in tensors.items()}, beside, metadata)
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)
        self._saved = time.monotonic()

    def load(self, weights: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> TrainState | None:
        """Take over what is there into weights and optimiser. None where nothing is, or nothing of this training; why,
        stands in the log."""
        try:
            with safe_open(self.path, "pt") as file:
                found: dict[str, Any] = json.loads((file.metadata() or {})[_METADATA_KEY])
                if found["identity"] != self._identity:
                    _log.warning("%s is of other text, settings or another base; training begins anew", self.path)
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            best = (
                [tensors[f"best.{place}"].to(weight.device) for place, weight in enumerate(weights)]
                if ("best.0" in tensors)
                else None
            )
            course = TrainState.of(found["course"], tensors["order"], best)
            states = _states(tensors, weights)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be read (%s); training begins anew", self.path, error)
            return None
        with torch.no_grad():
            for place, weight in enumerate(weights):
                weight.copy_(tensors[f"weight.{place}"])
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
        return course


def _states(tensors: dict[str, Tensor], weights: Sequence[Tensor]) -> dict[int, dict[str, Tensor]]:
    """Adam's state of each weight. Raises `KeyError` or `ValueError` where something is missing or misshapen."""
    for place, weight in enumerate(weights):
        if tensors[f"weight.{place}"].shape != weight.shape:
            raise ValueError(f"weight {place} has another shape")
    if "step.0" not in tensors:
        return {}
    return {place: {name: tensors[f"{name}.{place}"] for name in _MOMENTS} for place in range(len(weights))}
