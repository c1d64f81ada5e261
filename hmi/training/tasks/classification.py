"""Labels of whole texts: one of many (cross entropy), or any number (binary cross entropy for each)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hmi.errors import InvalidInput
from hmi.training.data import Example, MultiLabelExample
from hmi.training.lower import LowerStates
from hmi.training.reports import Evaluation, evaluate_classes, evaluate_multi_label
from hmi.training.tasks.network import Network
from hmi.training.tasks.objective import LabelObjective, Preprocessor, TaskData


def class_labels(examples: Sequence[Example]) -> tuple[str, ...]:
    """In alphabetical order. Raises `InvalidInput` for fewer than two labels."""
    labels = _sorted_labels({example.label for example in examples})
    if len(labels) < 2:
        raise InvalidInput(f"a classifier needs at least two labels; only {labels[0]!r} is there")
    return labels


def multi_labels(examples: Sequence[MultiLabelExample]) -> tuple[str, ...]:
    """In alphabetical order. Raises `InvalidInput` without any label."""
    labels = _sorted_labels({label for example in examples for label in example.labels})
    if not labels:
        raise InvalidInput("a multi-label classifier needs at least one label; no example has any")
    return labels


def _sorted_labels(labels: set[str]) -> tuple[str, ...]:
    if "" in labels:
        raise InvalidInput("a label is empty")
    return tuple(sorted(labels))


@dataclass(frozen=True, slots=True, eq=False)
class TextData(TaskData):
    # Indices of labels, int64 `[n]`; of several labels float32 `[n, labels]`, 1 where a label is true.
    targets: NDArray[Any]


class Classification(LabelObjective[TextData, NDArray[np.int64]]):
    """One label for each text."""

    def prepare(self, examples: Sequence[Example], texts: Preprocessor) -> TextData:
        places = {label: place for place, label in enumerate(self.labels)}
        targets = np.array([places[example.label] for example in examples], np.int64)
        return TextData(texts.states([example.text for example in examples]), targets)

    def loss(self, network: Network, data: TextData, chosen: Sequence[int]) -> Tensor:
        logits = network.adapter.logits(*network.upper(data.states, chosen))  # [B, labels]
        return F.cross_entropy(logits, torch.from_numpy(data.targets[chosen]).to(network.device))

    def predict(self, network: Network, data: TextData) -> tuple[NDArray[np.int64], float]:
        logits = _all_logits(network, data.states)
        return logits.argmax(1).numpy(), float(F.cross_entropy(logits, torch.from_numpy(data.targets)))

    def compare(self, data: TextData, predicted: NDArray[np.int64], loss: float = 0.0) -> Evaluation:
        return evaluate_classes(self.labels, data.targets, predicted, loss)

    def counts(self, data: TextData) -> tuple[int, ...]:
        return tuple(np.bincount(data.targets, minlength=len(self.labels)).tolist())

    def baseline(self, network: Network, train: TextData, dev: TextData) -> float:
        most_frequent = int(np.argmax(self.counts(train)))
        return float((dev.targets == most_frequent).mean())


class MultiLabel(LabelObjective[TextData, NDArray[np.bool_]]):
    """Any number of labels for each text: those with a probability above a half, as in serving."""

    def prepare(self, examples: Sequence[MultiLabelExample], texts: Preprocessor) -> TextData:
        places = {label: place for place, label in enumerate(self.labels)}
        targets = np.zeros((len(examples), len(self.labels)), np.float32)
        for row, example in enumerate(examples):
            targets[row, [places[label] for label in example.labels]] = 1
        return TextData(texts.states([example.text for example in examples]), targets)

    def loss(self, network: Network, data: TextData, chosen: Sequence[int]) -> Tensor:
        logits = network.adapter.logits(*network.upper(data.states, chosen))  # [B, labels]
        return F.binary_cross_entropy_with_logits(logits, torch.from_numpy(data.targets[chosen]).to(network.device))

    def predict(self, network: Network, data: TextData) -> tuple[NDArray[np.bool_], float]:
        logits = _all_logits(network, data.states)
        loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(data.targets))
        return logits.numpy() > 0, float(loss)

    def compare(self, data: TextData, predicted: NDArray[np.bool_], loss: float = 0.0) -> Evaluation:
        return evaluate_multi_label(self.labels, data.targets > 0.5, predicted, loss)

    def counts(self, data: TextData) -> tuple[int, ...]:
        return tuple(data.targets.sum(0).astype(int).tolist())

    def baseline(self, network: Network, train: TextData, dev: TextData) -> float:
        """The better of two answers: every label that more than half of the examples have; the most frequent label."""
        shares = train.targets.mean(0)
        predicted = np.broadcast_to((shares > 0.5) | (shares == shares.max()), dev.targets.shape)
        return self.compare(dev, predicted).metrics.score


@torch.no_grad()
def _all_logits(network: Network, states: LowerStates) -> Tensor:
    """float32 `[n, labels]` on the host, in the order of the sequences."""
    logits = torch.empty(len(states), len(network.adapter.labels))
    for chosen, hidden, mask in network.evaluation_batches(states):
        logits[chosen] = network.adapter.logits(hidden, mask).float().cpu()
    return logits
