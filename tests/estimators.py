"""Estimators of rows with random weights, and base artifacts that bring one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from hmi.models.families import load_hplm, load_tokenizer, save_hplm
from hmi.models.layers import RowEstimator
from hmi.spec import HPLMSpec

__all__ = ["random_estimator", "with_estimator"]


def random_estimator(hidden_size: int, *, seed: int, size: int = 24) -> RowEstimator:
    """It changes rows about as much as they are long."""
    made = RowEstimator(hidden_size, size)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            tensor.normal_(0, 0.1 if name.endswith("bias") else (2 * tensor.shape[-1]) ** -0.5, generator=generator)
        made.error.fill_(0.25)
    return made.requires_grad_(False)


def with_estimator(folder: Path, estimator: RowEstimator) -> HPLMSpec:
    """Give the base artifact in `folder` an estimator."""
    model = load_hplm(folder)
    spec = dataclasses.replace(model.spec, estimator_size=estimator.inner.out_features)
    own = {f"estimator.{name}": tensor for name, tensor in estimator.state_dict().items()}
    save_hplm(folder, spec, {**model.state_dict(), **own}, load_tokenizer(folder))
    return spec
