"""How far a distillation is, on disk: one that was stopped goes on and ends with the same weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["DistillState"]

_log = logging.getLogger(__name__)

_MOMENTS = ("exp_avg", "exp_avg_sq")


class DistillState:
    """One safetensors file: the trained weights, Adam's moments, and the losses so far.

    Args:
        identity: Of models, text and configuration; a file of another one is not taken up.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self._identity = identity

    def save(self, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, losses: list[float]) -> None:
        """Replace what is there. Raises `OSError`."""
        tensors = {name: weight.detach() for name, weight in weights.items()}
        for name, weight in weights.items():
            tensors |= {f"{name}|{moment}": optimizer.state[weight][moment] for moment in _MOMENTS}
        metadata = {"identity": self._identity, "losses": json.dumps(losses)}
        beside = self._path.with_name(f".{self._path.name}.tmp")
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, beside, metadata)
        beside.replace(self._path)

    def restore(self, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> list[float]:
        """Take over what is there; the losses of the steps that are done. None were where nothing fits, and the log
        says why."""
        try:
            with safe_open(self._path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("identity") != self._identity:
                    _log.warning("%s is of another text, model or configuration; beginning anew", self._path)
                    return []
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            losses: list[float] = json.loads(metadata["losses"])
            states = {
                place: self._moments(name, weight, found, len(losses))
                for place, (name, weight) in enumerate(weights.items())
            }
        except FileNotFoundError:
            return []
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            _log.warning("%s cannot be read (%s); beginning anew", self._path, error)
            return []
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(found[name])
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
        return losses

    @staticmethod
    def _moments(name: str, weight: Tensor, found: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
        """Adam's state of a weight. Raises `KeyError` or `ValueError` where something is missing or misshapen."""
        moments = {moment: found[f"{name}|{moment}"].to(weight.device) for moment in _MOMENTS}
        if any(each.shape != weight.shape for each in (found[name], *moments.values())):
            raise ValueError(f"{name} has another shape")
        return {"step": torch.tensor(float(steps), device=weight.device), **moments}
