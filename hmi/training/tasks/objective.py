"""What a task defines: its data, its loss, its evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from hmi.adapters import Pooling
from hmi.models.text import ChatTemplate
from hmi.spec import HPLMSpec
from hmi.training.lower import LowerStates, encode
from hmi.training.reports import Evaluation, Metrics
from hmi.training.tasks.network import Network


class Preprocessor:
    """Turns texts, cut to `max_tokens`, into the lower layers' output, which the network reads."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        spec: HPLMSpec,
        max_tokens: int,
        states_of: Callable[[Sequence[NDArray[np.int64]]], LowerStates],
        chat: ChatTemplate | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.spec = spec
        self.max_tokens = max_tokens
        self.states_of = states_of
        self.chat = chat

    def states(self, texts: Sequence[str]) -> LowerStates:
        has_end = not self.spec.family.decodes
        return self.states_of(encode(self.tokenizer, texts, self.max_tokens, has_end=has_end))


@dataclass(frozen=True, slots=True, eq=False)
class TaskData:
    """Prepared examples: the network's inputs; subclasses add the targets."""

    states: LowerStates

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example; batches hold examples of similar length."""
        return self.states.lengths

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Tokens of each example, over all of its texts."""
        return self.lengths


DataT = TypeVar("DataT", bound=TaskData)
AnswersT = TypeVar("AnswersT")


class Objective(ABC, Generic[DataT]):
    """One task with its labels fixed."""

    labels: tuple[str, ...] = ()  # in the order of the head's outputs; empty without a head
    pooling: Pooling = Pooling.MEAN  # what the head reads

    @abstractmethod
    def prepare(self, examples: Sequence[Any], texts: Preprocessor) -> DataT:
        """Examples of this task that have these labels alone."""

    @abstractmethod
    def loss(self, network: Network, data: DataT, chosen: Sequence[int]) -> Tensor:
        """Mean over the chosen examples; gradients flow into the adapter."""

    @abstractmethod
    def evaluate(self, network: Network, data: DataT) -> Metrics:
        """Metrics of the network's answers."""

    def counts(self, data: DataT) -> tuple[int, ...]:
        """How often each label is true."""
        return ()

    def baseline(self, network: Network, train: DataT, dev: DataT) -> float:
        """The dev score of always answering the most frequent training label; without labels, of the untrained
        network."""
        return self.evaluate(network, dev).score


class LabelObjective(Objective[DataT], Generic[DataT, AnswersT]):
    """Base of the objectives whose answers are labels."""

    def __init__(self, labels: tuple[str, ...], pooling: Pooling) -> None:
        self.labels = labels
        self.pooling = pooling

    @abstractmethod
    def predict(self, network: Network, data: DataT) -> tuple[AnswersT, float]:
        """The labels of each text, and the loss."""

    @abstractmethod
    def compare(self, data: DataT, predicted: AnswersT, loss: float = 0.0) -> Evaluation:
        """Predicted labels against the true ones."""

    def evaluate(self, network: Network, data: DataT) -> Metrics:
        return self.evaluate_each(network, data).metrics

    def evaluate_each(self, network: Network, data: DataT) -> Evaluation:
        """As `evaluate`, with the answers to each text."""
        return self.compare(data, *self.predict(network, data))
