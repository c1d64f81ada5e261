"""Fitting the small network that estimates the rows of n-grams from those of their tokens, see `RowEstimator`.

Rows are a function of the n-gram alone, so every window of any text is an example; no labels and no teacher but the
lower layers are needed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
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
from hmi.training.loop import Trainer
from hmi.training.lower import window_rows
from hmi.training.plan import require_numbers
from hmi.training.reports import OnProgress, TrainProgress

_CHUNK = 4096
_SHOWN = 50  # steps between two reports of progress, and whose mean loss they give


@dataclass(frozen=True, slots=True)
class EstimatorConfig:
    """How an estimator is trained."""

    size: int = 768  # its hidden size
    steps: int = 9000  # of the optimizer
    batch_size: int = 512  # windows in one step
    learning_rate: float = 3e-3  # peak of the schedule
    most_windows: int = 600_000  # of the text, a random sample
    seed: int = 0  # with the same text, machine and number of threads it gives the same weights

    def __post_init__(self) -> None:
        require_numbers(self, {"size": 1, "steps": 1, "batch_size": 1, "most_windows": 1})


def fit_estimator(
    model: HPLM,
    sequences: Sequence[NDArray[np.int64]],
    held_out: Sequence[NDArray[np.int64]],
    config: EstimatorConfig,
    delta: TrainingAdapters | None = None,
    *,
    start: RowEstimator | None = None,
    on_progress: OnProgress = lambda progress: None,
) -> RowEstimator:
    """Fit an estimator of the model's rows. It is on the host in float32, with its `RowEstimator.error`.

    Args:
        sequences: Token ids of the text whose windows are learnt.
        held_out: Of other text: its windows that were not learnt give the error, or all if there are none.
        start: Estimator of a similar function to begin with; its size is used.
        on_progress: Called every few steps only, with the squared relative error as the loss.
    """
    rng = np.random.default_rng(config.seed)
    learnt = _windows(model, sequences)
    if len(learnt) > config.most_windows:
        learnt = np.sort(rng.choice(learnt, config.most_windows, replace=False))
    others = _windows(model, held_out)
    unknown = others[~np.isin(others, learnt)]
    others = unknown if len(unknown) else others
    rows = _RowData(model, np.concatenate([learnt, others]), delta)
    estimator = _CentredEstimator(start if start is not None else _new_estimator(model, config), rows.tokens)
    _train(estimator, rows, len(learnt), config, on_progress)
    folded = estimator.folded()
    errors = [
        _errors(folded(rows.tokens, rows.index[part]), rows.rows[part].float())
        for part in torch.split(torch.arange(len(learnt), len(learnt) + len(others)), _CHUNK)
    ]
    error = float(torch.cat(errors).clamp(max=1).mean())  # an error of 1 is that of no estimate at all
    if not math.isfinite(error):
        raise InvalidInput("the estimator's numbers are not finite; take a lower learning rate", param="learning_rate")
    folded.error.fill_(error)
    return folded.cpu()


def _windows(model: HPLM, sequences: Sequence[NDArray[np.int64]]) -> Keys:
    lengths = np.array([len(ids) for ids in sequences])
    return np.unique(window_keys(np.concatenate(sequences), lengths, looks_back=model.spec.family.decodes))


class _RowData:
    def __init__(self, model: HPLM, windows: Keys, delta: TrainingAdapters | None) -> None:
        ids = unpack(windows)
        tokens = np.unique(ids[ids >= 0])
        alone = window_rows(model, token_keys(tokens), delta).float()
        self.tokens = torch.cat([alone, alone.new_zeros(1, alone.shape[1])])  # float32 [m, H], zeros for no token
        index = np.where(ids >= 0, np.searchsorted(tokens, ids), len(tokens))
        self.index = torch.from_numpy(index).to(alone.device)  # [n, 3], the tokens of each window in `tokens`
        self.rows = window_rows(model, windows, delta)  # [n, H], in the model's dtype


class _CentredEstimator(torch.nn.Module):
    """An estimator that reads rows with a mean of zero and values of about one, from which it learns faster; `folded`
    is the same function of the rows as they are."""

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
        """As `RowEstimator.forward`, with tokens from `centre`; the estimates are of the rows as they are."""
        estimates: Tensor = self.inside(tokens, index)
        return estimates * self._scale + self._mean

    def centre(self, tokens: Tensor) -> Tensor:
        return (tokens - self._mean) / self._scale

    @torch.no_grad()
    def folded(self) -> RowEstimator:
        folded = RowEstimator(len(self._mean), len(self.inside.inner.weight)).to(self._mean.device)
        folded.load_state_dict(self.inside.state_dict())
        mean = self._mean.repeat(3)
        folded.inner.weight.div_(self._scale)
        folded.inner.bias.sub_(folded.inner.weight @ mean)
        folded.outer.weight.mul_(self._scale)
        folded.outer.bias.mul_(self._scale).sub_(folded.linear.weight @ mean)
        return folded.requires_grad_(False)


def _new_estimator(model: HPLM, config: EstimatorConfig) -> RowEstimator:
    """One that adds nothing yet."""
    estimator = RowEstimator(model.spec.hidden_size, config.size)
    generator = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        estimator.inner.weight.normal_(0, (3 * estimator.inner.in_features) ** -0.5, generator=generator)
        for tensor in (estimator.inner.bias, estimator.outer.weight, estimator.outer.bias, estimator.linear.weight):
            tensor.zero_()
    return estimator


def _train(
    estimator: _CentredEstimator, data: _RowData, learnt: int, config: EstimatorConfig, on_progress: OnProgress
) -> None:
    generator = torch.Generator().manual_seed(config.seed)
    tokens = estimator.centre(data.tokens)

    def loss_of(step: int) -> Tensor:
        chosen = torch.randint(learnt, (config.batch_size,), generator=generator).to(tokens.device)
        return _errors(estimator(tokens, data.index[chosen]), data.rows[chosen].float()).mean()

    def report(progress: TrainProgress) -> None:
        if progress.done % _SHOWN == 0 or progress.done == config.steps:
            on_progress(dataclasses.replace(progress, loss=trainer.state.mean_loss(_SHOWN) ** 2))

    weights = list(estimator.parameters())
    trainer = Trainer(weights, torch.optim.AdamW(weights, lr=config.learning_rate), config.steps, report)
    trainer.run(loss_of)


def _errors(estimates: Tensor, rows: Tensor) -> Tensor:
    """|estimate - row| / |row| of each, `[n]`."""
    size = torch.linalg.vector_norm(rows, dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    errors: Tensor = torch.linalg.vector_norm(estimates - rows, dim=1) / size
    return errors
