"""A base artifact from a pretrained model: conversion, and calibration on text.

With k > 0 the lower layers see 3-token windows instead of the sequence. Calibration fits what comes after
them in closed form, from one pass over a sample of text: `window.projection` and `correction.position` together
are the least-squares map from a window's state and position to the full model's state at that token.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.engine.config import resolve_device, resolve_dtype
from hmi.errors import Conflict, InvalidInput
from hmi.models.bert import HBert
from hmi.models.loader import convert_pretrained, load_hplm, load_tokenizer, save_hplm
from hmi.spec import HPLMSpec, RowDtype
from hmi.training.fidelity import Fidelity, measure_fidelity, state_pairs
from hmi.training.states import encode

__all__ = ["BaseReport", "build_base", "calibrate"]

_MOST_TEXTS = 4000  # more hardly moves the means
_MAX_TOKENS = 128
_HELD_OUT = 10  # every tenth text judges, the others calibrate
_PRIOR_TEXTS = 32  # a position's correction is drawn to zero as if so many texts had shown none there
_RIDGE = 1e-4  # relative to the mean square of the states: keeps directions that text never shows from growing
_ROUNDS = 3  # projection and correction are fitted by turns; more change nothing


@dataclass(frozen=True, slots=True)
class BaseReport:
    """`texts` were used for calibration; `before` and `after` it are None where there was none (k = 0, or no text)."""

    spec: HPLMSpec
    texts: int
    before: Fidelity | None
    after: Fidelity | None


def build_base(
    source: Path,
    out: Path,
    k: int,
    row_dtype: RowDtype = RowDtype.INT8,
    texts: Sequence[str] = (),
    *,
    device: str = "cpu",
) -> BaseReport:
    """Make the base artifact `out` from a transformers folder; it appears whole or not at all.

    Where k > 0 and texts are given, it is calibrated on them.

    Raises `InvalidInput` for a source that is not understood, `Conflict` where `out` is there already.
    """
    if out.exists():
        raise Conflict(f"{out} is there already; remove it or choose another folder")
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        spec = convert_pretrained(source, beside, k=k, row_dtype=row_dtype)
        report = BaseReport(spec, texts=0, before=None, after=None)
        if k and texts:
            report = calibrate(beside, texts, device=device)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return report


@torch.no_grad()
def calibrate(folder: Path, texts: Sequence[str], *, device: str = "cpu") -> BaseReport:
    """Fit the base artifact in `folder` to `texts` and write it back.

    States are computed in the device's fast dtype: its rounding is far below what windows change.

    Raises `InvalidInput` where k = 0 (nothing is looked up) or too few texts are given to judge the result.
    """
    where = resolve_device(device)
    model = load_hplm(folder, where, resolve_dtype("auto", where))
    if not model.spec.k:
        raise InvalidInput("a base with k = 0 is the ordinary model; there is nothing to calibrate")
    tokenizer = load_tokenizer(folder)
    step = max(1, len(texts) // _MOST_TEXTS)
    sequences = encode(tokenizer, [t for t in texts[::step] if t.strip()], min(_MAX_TOKENS, model.spec.max_positions))
    if len(sequences) < 2:
        raise InvalidInput("calibration needs at least two texts")
    held_out = sequences[::_HELD_OUT]
    seen = [ids for number, ids in enumerate(sequences) if number % _HELD_OUT]
    _set(model, _Fit.identity(model.spec))
    before = measure_fidelity(model, held_out)
    fit = _fit(_moments(model, seen))
    _set(model, fit)
    after = measure_fidelity(model, held_out)
    tensors = dict(load_hplm(folder).state_dict())
    tensors |= {
        "window.projection.weight": fit.weight,
        "window.projection.bias": fit.bias,
        "correction.position": fit.correction,
    }
    save_hplm(folder, model.spec, tensors, tokenizer)
    return BaseReport(model.spec, len(seen), before, after)


@dataclass(frozen=True, slots=True)
class _Fit:
    """weight [H, H], bias [H], correction [max_positions, H]; float32 on the CPU."""

    weight: Tensor
    bias: Tensor
    correction: Tensor

    @classmethod
    def identity(cls, spec: HPLMSpec) -> _Fit:
        hidden = spec.hidden_size
        return cls(torch.eye(hidden), torch.zeros(hidden), torch.zeros(spec.max_positions, hidden))


@dataclass(frozen=True, slots=True)
class _Moments:
    """Sums over all tokens of x = (window's state, 1) and y = the full model's state; float64.

    Attributes:
        xx: [H + 1, H + 1], the sum of x x^T; xy: [H + 1, H], the sum of x y^T.
        x: [max_positions, H + 1], the sum of x at each position; y: [max_positions, H], likewise.
    """

    xx: Tensor
    xy: Tensor
    x: Tensor
    y: Tensor


def _set(model: HBert, fit: _Fit) -> None:
    model.window.projection.weight.copy_(fit.weight)
    model.window.projection.bias.copy_(fit.bias)
    model.correction.position.copy_(fit.correction)


def _moments(model: HBert, sequences: Sequence[NDArray[np.int64]]) -> _Moments:
    """Needs a model that is set to the identity, so that merged rows are the windows' own states."""
    hidden, positions = model.spec.hidden_size, model.spec.max_positions
    xx, xy = torch.zeros(hidden + 1, hidden + 1).double(), torch.zeros(hidden + 1, hidden).double()
    at_x, at_y = torch.zeros(positions, hidden + 1).double(), torch.zeros(positions, hidden).double()
    for full, merged, mask in state_pairs(model, sequences):
        y = full[mask].float().cpu()
        x = torch.nn.functional.pad(merged[mask].float().cpu(), (0, 1), value=1.0)
        position = torch.arange(mask.shape[1]).expand(mask.shape)[mask.cpu()]
        xx += (x.T @ x).double()
        xy += (x.T @ y).double()
        at_x.index_add_(0, position, x.double())
        at_y.index_add_(0, position, y.double())
    return _Moments(xx, xy, at_x, at_y)


def _fit(sums: _Moments) -> _Fit:
    """Projection and correction by turns, each the best for the other; both problems have one answer."""
    seen = sums.x[:, -1:]  # tokens at each position [max_positions, 1]
    ridge = _RIDGE * sums.xx.diagonal()[:-1].mean() * torch.eye(len(sums.xx)).double()
    ridge[-1, -1] = 0  # the bias is free
    correction = torch.zeros_like(sums.y)
    solved = torch.zeros_like(sums.xy)
    for _ in range(_ROUNDS):
        solved = torch.linalg.solve(sums.xx + ridge, sums.xy - sums.x.T @ correction)
        left = sums.y - sums.x @ solved  # what is missing at each position, summed
        correction = left / (seen + _PRIOR_TEXTS)
        # The first position always holds the same special token: its own mean is all there is to know.
        correction[0] = left[0] / seen[0]
    return _Fit(solved[:-1].T.float().contiguous(), solved[-1].float(), correction.float())
