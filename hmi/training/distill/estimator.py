"""Teaching a small network to tell the rows of n-grams from those of their tokens: see `hmi.models.layers.estimator`.

Rows are a function of the n-gram alone, so there is as much to learn from as there are windows in any text; no labels,
and no teacher but the lower layers themselves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters.maths import TrainingAdapters
from hmi.errors import InvalidInput
from hmi.knowledge import Keys, token_keys, unpack, window_keys
from hmi.models.families import HPLM
from hmi.models.layers import RowEstimator
from hmi.training.loop import MAX_GRADIENT_NORM, learning_rate_factor
from hmi.training.lower import window_rows
from hmi.training.reports import TrainProgress

__all__ = ["EstimatorConfig", "fit_estimator"]

_CHUNK = 4096
_SAID = 50  # steps between two words of progress, and whose mean loss they say


@dataclass(frozen=True, slots=True)
class EstimatorConfig:
    """How an estimator is trained.

    Attributes:
        size: Its hidden values.
        steps: Of the optimiser.
        batch_size: Windows in one step.
        learning_rate: Peak of the schedule.
        most_windows: Of the text's different ones, drawn at random where there are more.
        seed: Same seed, same text, same machine, same number of threads: same weights.
    """

    size: int = 768
    steps: int = 9000
    batch_size: int = 512
    learning_rate: float = 3e-3
    most_windows: int = 600_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("size", "steps", "batch_size", "most_windows"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be at least 1, not {getattr(self, name)}", param=name)


def fit_estimator(
    model: HPLM,
    sequences: Sequence[NDArray[np.int64]],
    judging: Sequence[NDArray[np.int64]],
    config: EstimatorConfig,
    delta: TrainingAdapters | None = None,
    *,
    start: RowEstimator | None = None,
    on_progress: Callable[[TrainProgress], None] = lambda progress: None,
) -> RowEstimator:
    """An estimator of the model's rows, on the host in float32, and how well it does in `RowEstimator.error`.

    Args:
        sequences: Token ids of the text whose windows are learnt from.
        judging: Of other text; of its windows those that were not learnt from say how well it does, or all where there
            are no such.
        delta: Of the domain whose rows they are.
        start: To begin with, for it knows most of another function's rows already; its size counts.
        on_progress: Told now and then; the loss is the squared relative error. What it raises ends the training.
    """
    rng = np.random.default_rng(config.seed)
    learnt = _windows(model, sequences)
    if len(learnt) > config.most_windows:
        learnt = np.sort(rng.choice(learnt, config.most_windows, replace=False))
    asked = _windows(model, judging)
    unknown = asked[~np.isin(asked, learnt)]
    asked = unknown if len(unknown) else asked
    material = _Material(model, np.concatenate([learnt, asked]), delta)
    estimator = _Centred(start if start is not None else _fresh(model.spec.hidden_size, config), material.tokens)
    _fit(estimator, material, len(learnt), config, on_progress)
    made = estimator.folded()
    errors = [
        _errors(made(material.tokens, material.index[part]), material.rows[part].float())
        for part in torch.split(torch.arange(len(learnt), len(learnt) + len(asked)), _CHUNK)
    ]
    error = float(torch.cat(errors).clamp(max=1).mean())  # worse than none at all is none
    if not math.isfinite(error):
        raise InvalidInput("the estimator's numbers are not finite; take a lower learning rate", param="learning_rate")
    made.error.fill_(error)
    return made.cpu()


def _windows(model: HPLM, sequences: Sequence[NDArray[np.int64]]) -> Keys:
    lengths = np.array([len(ids) for ids in sequences])
    return np.unique(window_keys(np.concatenate(sequences), lengths, looks_back=model.spec.family.decodes))


class _Material:
    """
    Attributes:
        tokens: Rows of single tokens, and last one of zeros: float32 `[m, H]`.
        index: int64 `[n, 3]`, which of them the tokens of each window are.
        rows: The windows' own, in the model's dtype: `[n, H]`.
    """

    def __init__(self, model: HPLM, windows: Keys, delta: TrainingAdapters | None) -> None:
        ids = unpack(windows)
        tokens = np.unique(ids[ids >= 0])
        alone = window_rows(model, token_keys(tokens), delta).float()
        self.tokens = torch.cat([alone, alone.new_zeros(1, alone.shape[1])])
        index = np.where(ids >= 0, np.searchsorted(tokens, ids), len(tokens))
        self.index = torch.from_numpy(index).to(alone.device)
        self.rows = window_rows(model, windows, delta)


class _Centred(torch.nn.Module):
    """An estimator that sees rows with a mean of zero and values of about one, which it learns from faster; `folded` is
    the same function of the rows as they are."""

    def __init__(self, estimator: RowEstimator, tokens: Tensor) -> None:
        super().__init__()
        self._mean, self._scale = tokens[:-1].mean(0), tokens[:-1].std()
        self.inside = RowEstimator(tokens.shape[1], len(estimator.inner.weight)).to(tokens.device)
        self.inside.load_state_dict(estimator.state_dict())
        inside, mean, scale = self.inside, self._mean.repeat(3), self._scale
        with torch.no_grad():
            inside.inner.bias.add_(inside.inner.weight @ mean)
            inside.inner.weight.mul_(scale)
            inside.outer.bias.add_(inside.linear.weight @ mean).div_(scale)
            inside.outer.weight.div_(scale)

    def forward(self, tokens: Tensor, index: Tensor) -> Tensor:
        """As `RowEstimator.forward`, of tokens that `centre` gave; the estimates are of the rows as they are."""
        estimates: Tensor = self.inside(tokens, index)
        return estimates * self._scale + self._mean

    def centre(self, tokens: Tensor) -> Tensor:
        return (tokens - self._mean) / self._scale

    @torch.no_grad()
    def folded(self) -> RowEstimator:
        made = RowEstimator(len(self._mean), len(self.inside.inner.weight)).to(self._mean.device)
        made.load_state_dict(self.inside.state_dict())
        mean = self._mean.repeat(3)
        made.inner.weight.div_(self._scale)
        made.inner.bias.sub_(made.inner.weight @ mean)
        made.outer.weight.mul_(self._scale)
        made.outer.bias.mul_(self._scale).sub_(made.linear.weight @ mean)
        return made.requires_grad_(False)


def _fresh(hidden_size: int, config: EstimatorConfig) -> RowEstimator:
    """One that adds nothing yet."""
    made = RowEstimator(hidden_size, config.size)
    generator = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        made.inner.weight.normal_(0, (3 * made.inner.in_features) ** -0.5, generator=generator)
        for tensor in (made.inner.bias, made.outer.weight, made.outer.bias, made.linear.weight):
            tensor.zero_()
    return made


def _fit(
    estimator: _Centred,
    material: _Material,
    learnt: int,
    config: EstimatorConfig,
    on_progress: Callable[[TrainProgress], None],
) -> None:
    optimizer = torch.optim.AdamW(estimator.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config.steps))
    generator = torch.Generator().manual_seed(config.seed)
    tokens = estimator.centre(material.tokens)
    losses: list[float] = []
    started = time.monotonic()
    for done in range(1, config.steps + 1):
        chosen = torch.randint(learnt, (config.batch_size,), generator=generator).to(tokens.device)
        loss = _errors(estimator(tokens, material.index[chosen]), material.rows[chosen].float()).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(estimator.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if done % _SAID == 0 or done == config.steps:
            left = (time.monotonic() - started) / done * (config.steps - done)
            on_progress(TrainProgress(done, config.steps, float(np.mean(losses[-_SAID:])) ** 2, left))


def _errors(estimates: Tensor, rows: Tensor) -> Tensor:
    """|estimate - row| / |row| of each, `[n]`."""
    size = torch.linalg.vector_norm(rows, dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    errors: Tensor = torch.linalg.vector_norm(estimates - rows, dim=1) / size
    return errors
