"""Fitting the layers after the windows in closed form, from one pass over a sample of text.

`window.projection` and `correction.position` together become the least-squares map from a window's state and position
to the full model's state at that token. It replaces minutes of distillation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.models.families import HPLM
from hmi.spec import HPLMSpec
from hmi.training.distill.fidelity import state_pairs

_PRIOR_TEXTS = 32  # a position's correction is drawn to zero as if so many texts had shown none there
_RIDGE = 1e-4  # relative to the mean square of the states: bounds directions that the text never shows
_ROUNDS = 3  # projection and correction are fitted alternately; more rounds change nothing


@dataclass(frozen=True, slots=True)
class Calibration:
    """The fitted parameters, float32 on the CPU."""

    weight: Tensor  # [H, H]
    bias: Tensor  # [H]
    correction: Tensor | None  # [max_positions, H]; None if positions are in the attention

    @classmethod
    def identity(cls, spec: HPLMSpec) -> Calibration:
        hidden = spec.hidden_size
        correction = torch.zeros(spec.max_positions, hidden) if spec.rope_theta is None else None
        return cls(torch.eye(hidden), torch.zeros(hidden), correction)

    @torch.no_grad()
    def set(self, model: HPLM) -> None:
        for name, value in self.tensors().items():
            model.get_parameter(name).copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """By their names in the artifact."""
        named = {"window.projection.weight": self.weight, "window.projection.bias": self.bias}
        return named if self.correction is None else named | {"correction.position": self.correction}


@torch.no_grad()
def calibrate(model: HPLM, sequences: Sequence[NDArray[np.int64]]) -> Calibration:
    """The best fit to the sequences, for a model with the original's layers. The model is set to the identity."""
    Calibration.identity(model.spec).set(model)
    spec = model.spec
    pairs = ((full, merged, mask) for full, merged, _, mask in state_pairs(model, sequences))
    sums = Moments.of(pairs, spec)
    return fit_calibration(sums, by_position=spec.rope_theta is None, has_first=not spec.family.decodes)


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over all tokens of x = (window's state, 1) and y = the full model's state; float64."""

    xx: Tensor  # [H + 1, H + 1], the sum of x x^T
    xy: Tensor  # [H + 1, H], the sum of x y^T
    x: Tensor  # [max_positions, H + 1], the sum of x at each position; one position if positions are in the attention
    y: Tensor  # [max_positions, H], likewise

    @classmethod
    def of(cls, pairs: Iterable[tuple[Tensor, Tensor, Tensor]], spec: HPLMSpec) -> Moments:
        """Of batches: the full model's states and the merged rows `[B, T, H]`, and their mask.

        The model is set to the identity, so that merged rows are the windows' own states.
        """
        hidden, positions = spec.hidden_size, spec.max_positions if spec.rope_theta is None else 1
        xx, xy = torch.zeros(hidden + 1, hidden + 1).double(), torch.zeros(hidden + 1, hidden).double()
        at_x, at_y = torch.zeros(positions, hidden + 1).double(), torch.zeros(positions, hidden).double()
        for full, merged, mask in pairs:
            y = full[mask].float().cpu()  # [tokens, H]
            x = torch.nn.functional.pad(merged[mask].float().cpu(), (0, 1), value=1.0)  # [tokens, H + 1]
            position = torch.arange(mask.shape[1]).clamp(max=positions - 1).expand(mask.shape)[mask.cpu()]
            xx += (x.T @ x).double()
            xy += (x.T @ y).double()
            at_x.index_add_(0, position, x.double())
            at_y.index_add_(0, position, y.double())
        return cls(xx, xy, at_x, at_y)


def fit_calibration(sums: Moments, *, by_position: bool = True, has_first: bool = True) -> Calibration:
    """Fit projection and correction alternately, each the least-squares solution for the other.

    There is a correction only `by_position`, and `has_first` if every text begins with the same special token.
    """
    seen = sums.x[:, -1:]  # tokens at each position [max_positions, 1]
    ridge = _RIDGE * sums.xx.diagonal()[:-1].mean() * torch.eye(len(sums.xx)).double()
    ridge[-1, -1] = 0  # the bias is free
    correction = torch.zeros_like(sums.y)
    solved = torch.zeros_like(sums.xy)
    for _ in range(_ROUNDS if by_position else 1):
        solved = torch.linalg.solve(sums.xx + ridge, sums.xy - sums.x.T @ correction)
        residual = sums.y - sums.x @ solved  # summed at each position
        correction = residual / (seen + _PRIOR_TEXTS)
        if has_first:
            correction[0] = residual[0] / seen[0]  # always the same token, so its own mean is exact
    return Calibration(
        solved[:-1].T.float().contiguous(), solved[-1].float(), correction.float() if by_position else None
    )
