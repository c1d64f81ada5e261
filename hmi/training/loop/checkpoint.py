"""The state of a training, and the file that keeps it, so that a stopped training resumes to the bit."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hmi.training.reports import Metrics

_log = logging.getLogger(__name__)

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of Adam


@dataclass(slots=True)
class TrainState:
    """What a resumed training needs beside the weights and the optimizer's moments."""

    losses: list[float] = field(default_factory=list)  # of every step so far
    evaluations: list[Metrics] = field(default_factory=list)  # on the dev set, after every epoch
    best: list[Tensor] | None = None  # weights after the best epoch; None before the first evaluation
    seconds: float = 0.0  # run time so far, earlier runs included

    @property
    def done(self) -> int:
        return len(self.losses)

    @property
    def best_epoch(self) -> int:
        """From 1, 0 without evaluations. The first one with the highest score; a lower loss decides equal scores."""
        ranks = [(metrics.score, -metrics.loss) for metrics in self.evaluations]
        return 1 + ranks.index(max(ranks)) if ranks else 0

    def mean_loss(self, last: int) -> float:
        return float(np.mean(self.losses[-last:]))

    def loss_curve(self) -> tuple[float, ...]:
        """Mean loss of each tenth of the steps."""
        tenths = np.array_split(self.losses, min(10, self.done)) if self.losses else []
        return tuple(float(np.mean(part)) for part in tenths)


class Checkpoint:
    """One safetensors file: weights, Adam's moments, the best epoch's weights, losses, evaluations.

    Args:
        identity: Digest of everything that decides the result. A file with another identity is ignored.
        save_seconds: Between two saves, see `is_due`.
    """

    def __init__(self, path: Path, identity: str, save_seconds: float = 5.0) -> None:
        self.path = path
        self._identity = identity
        self._save_seconds = save_seconds
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self._saved >= self._save_seconds

    def save(self, state: TrainState, weights: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> None:
        """Replace the file at once. Raises `OSError`."""
        tensors = {"losses": torch.tensor(state.losses, dtype=torch.float64)}
        for place, weight in enumerate(weights):
            tensors[f"weight.{place}"] = weight.detach()
            for name in _MOMENTS if optimizer.state.get(weight) else ():
                tensors[f"{name}.{place}"] = optimizer.state[weight][name]
        for place, weight in enumerate(state.best or ()):
            tensors[f"best.{place}"] = weight
        evaluations = json.dumps([metrics.to_json() for metrics in state.evaluations])
        metadata = {"identity": self._identity, "evaluations": evaluations, "seconds": repr(state.seconds)}
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            save_file({name: each.contiguous().cpu() for name, each in tensors.items()}, beside, metadata)
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)
        self._saved = time.monotonic()

    def load(self, weights: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> TrainState | None:
        """Copy the file's content into weights and optimizer.

        Returns None, and logs the reason, if the file is damaged or belongs to another training.
        """
        try:
            with safe_open(self.path, "pt") as file:
                metadata: dict[str, str] = file.metadata() or {}
                if metadata["identity"] != self._identity:
                    _log.warning("%s belongs to another text, configuration or base; training starts over", self.path)
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            state = _state_of(metadata, tensors, weights)
            moments = _moments_of(tensors, weights)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be read (%s); training starts over", self.path, error)
            return None
        with torch.no_grad():
            for place, weight in enumerate(weights):
                weight.copy_(tensors[f"weight.{place}"])
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        return state


def _state_of(metadata: dict[str, str], tensors: dict[str, Tensor], weights: Sequence[Tensor]) -> TrainState:
    """Raises `KeyError`, `ValueError` or `TypeError` if something is missing."""
    best = None
    if "best.0" in tensors:
        best = [tensors[f"best.{place}"].to(weight.device) for place, weight in enumerate(weights)]
    evaluations: list[dict[str, Any]] = json.loads(metadata["evaluations"])
    return TrainState(
        tensors["losses"].tolist(), [Metrics.from_json(each) for each in evaluations], best, float(metadata["seconds"])
    )


def _moments_of(tensors: dict[str, Tensor], weights: Sequence[Tensor]) -> dict[int, dict[str, Tensor]]:
    """Adam's state of each weight. Raises `KeyError` or `ValueError` if something is missing or misshapen."""
    for place, weight in enumerate(weights):
        if tensors[f"weight.{place}"].shape != weight.shape:
            raise ValueError(f"weight {place} has another shape")
    if "step.0" not in tensors:
        return {}
    return {place: {name: tensors[f"{name}.{place}"] for name in _MOMENTS} for place in range(len(weights))}
