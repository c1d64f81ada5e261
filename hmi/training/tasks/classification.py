"""Labels of whole texts: one of many (cross entropy), or any number (binary cross entropy for each)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hmi.adapters import Pooling
from hmi.errors import InvalidInput
from hmi.training.data import Example, MultiLabelExample
from hmi.training.lower import LowerStates
from hmi.training.reports import (
    Evaluation,
    Metrics,
    class_counts,
    class_metrics,
    multi_label_counts,
    multi_label_metrics,
)
from hmi.training.tasks.network import Network
from hmi.training.tasks.objective import Preprocessor

__all__ = ["ClassPart", "Classification", "MultiLabel", "MultiLabelPart", "class_labels", "multi_labels"]


def class_labels(examples: Sequence[Example]) -> tuple[str, ...]:
    """In alphabetical order. Raises `InvalidInput` where a classifier would have nothing to tell apart."""
    labels = _named({example.label for example in examples})
    if len(labels) < 2:
        raise InvalidInput(f"a classifier needs at least two labels; only {labels[0]!r} is there")
    return labels


def multi_labels(examples: Sequence[MultiLabelExample]) -> tuple[str, ...]:
    """In alphabetical order. Raises `InvalidInput` where there is none."""
    labels = _named({label for example in examples for label in example.labels})
    if not labels:
        raise InvalidInput("a multi-label classifier needs at least one label; no example has any")
    return labels


def _named(labels: set[str]) -> tuple[str, ...]:
    if "" in labels:
        raise InvalidInput("a label is empty")
    return tuple(sorted(labels))


@dataclass(frozen=True, slots=True, eq=False)
class ClassPart:
    """targets int64 `[n]`, places in the labels."""

    states: LowerStates
    targets: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.states.lengths

    tokens = lengths


class Classification:
    """One label for each text."""

    def __init__(self, labels: tuple[str, ...], pooling: Pooling) -> None:
        self.labels = labels
        self.pooling = pooling

    def prepare(self, examples: Sequence[Example], texts: Preprocessor) -> ClassPart:
        places = {label: place for place, label in enumerate(self.labels)}
        targets = np.array([places[example.label] for example in examples], np.int64)
        return ClassPart(texts.states([example.text for example in examples]), targets)

    def loss(self, network: Network, part: ClassPart, chosen: Sequence[int]) -> Tensor:
        logits = network.adapter.logits(*network.upper(part.states, chosen))
        return F.cross_entropy(logits, torch.from_numpy(part.targets[chosen]).to(network.device))

    def judge(self, network: Network, part: ClassPart) -> Metrics:
        return class_metrics(self.labels, part.targets, *self._answer(network, part))

    def examine(self, network: Network, part: ClassPart) -> Evaluation:
        said, loss = self._answer(network, part)
        metrics = class_metrics(self.labels, part.targets, said, loss)
        return Evaluation(metrics, class_counts(self.labels, part.targets, said))

    def _answer(self, network: Network, part: ClassPart) -> tuple[NDArray[np.int64], float]:
        """The label of each text, and the loss."""
        logits = _all_logits(network, part.states)
        return logits.argmax(1).numpy(), float(F.cross_entropy(logits, torch.from_numpy(part.targets)))

    def counts(self, part: ClassPart) -> tuple[int, ...]:
        return tuple(np.bincount(part.targets, minlength=len(self.labels)).tolist())

    def baseline(self, network: Network, learnt: ClassPart, judging: ClassPart) -> float:
        usual = int(np.argmax(self.counts(learnt)))
        return float((judging.targets == usual).mean())


@dataclass(frozen=True, slots=True, eq=False)
class MultiLabelPart:
    """targets float32 `[n, labels]`, 1 where a label is true."""

    states: LowerStates
    targets: NDArray[np.float32]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.states.lengths

    tokens = lengths


class MultiLabel:
    """Each label is a question of its own; an answer above a half is a yes, as in serving."""

    def __init__(self, labels: tuple[str, ...], pooling: Pooling) -> None:
        self.labels = labels
        self.pooling = pooling

    def prepare(self, examples: Sequence[MultiLabelExample], texts: Preprocessor) -> MultiLabelPart:
        places = {label: place for place, label in enumerate(self.labels)}
        targets = np.zeros((len(examples), len(self.labels)), np.float32)
        for row, example in enumerate(examples):
            targets[row, [places[label] for label in example.labels]] = 1
        return MultiLabelPart(texts.states([example.text for example in examples]), targets)

    def loss(self, network: Network, part: MultiLabelPart, chosen: Sequence[int]) -> Tensor:
        logits = network.adapter.logits(*network.upper(part.states, chosen))
        return F.binary_cross_entropy_with_logits(logits, torch.from_numpy(part.targets[chosen]).to(network.device))

    def judge(self, network: Network, part: MultiLabelPart) -> Metrics:
        return multi_label_metrics(self.labels, part.targets > 0.5, *self._answer(network, part))

    def examine(self, network: Network, part: MultiLabelPart) -> Evaluation:
        true, (said, loss) = part.targets > 0.5, self._answer(network, part)
        return Evaluation(multi_label_metrics(self.labels, true, said, loss), multi_label_counts(true, said))

    def _answer(self, network: Network, part: MultiLabelPart) -> tuple[NDArray[np.bool_], float]:
        """Which labels each text is given, and the loss."""
        logits = _all_logits(network, part.states)
        loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(part.targets))
        return logits.numpy() > 0, float(loss)

    def counts(self, part: MultiLabelPart) -> tuple[int, ...]:
        return tuple(part.targets.sum(0).astype(int).tolist())

    def baseline(self, network: Network, learnt: MultiLabelPart, judging: MultiLabelPart) -> float:
        """The best of: every label that more than half of the examples have, and the most frequent one alone."""
        shares = learnt.targets.mean(0)
        said = np.broadcast_to((shares > 0.5) | (shares == shares.max()), judging.targets.shape)
        return multi_label_metrics(self.labels, judging.targets > 0.5, said).score


@torch.no_grad()
def _all_logits(network: Network, states: LowerStates) -> Tensor:
    """float32 `[n, labels]` on the host, in the order of the sequences."""
    logits = torch.empty(len(states), len(network.adapter.labels))
    for chosen, hidden, mask in network.judged(states):
        logits[chosen] = network.adapter.logits(hidden, mask).float().cpu()
    return logits
