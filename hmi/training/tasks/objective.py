"""What a task asks of training: its targets, its loss, its judgement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from hmi.adapters import Pooling
from hmi.adapters.maths import TrainingAdapters
from hmi.models.families import HPLM
from hmi.models.layers import RowEstimator
from hmi.models.text import ChatTemplate
from hmi.training.lower import LowerStates, ViewWindows, YieldHook, encode
from hmi.training.reports import Evaluation, Metrics
from hmi.training.tasks.network import Network

__all__ = ["LabelObjective", "Objective", "Preprocessor", "TaskData"]


class Preprocessor:
    """Makes texts ready for the network.

    Args:
        max_tokens: Longer texts are cut, special tokens included.
        delta: Of the domain whose rows are looked up.
        yield_hook: Called after every few thousand windows.
        see: As in `LowerStates`.
        chat: The model's template, where it has one.
        estimator: As in `LowerStates`.
    """

    def __init__(
        self,
        model: HPLM,
        tokenizer: Tokenizer,
        max_tokens: int,
        delta: TrainingAdapters | None,
        yield_hook: YieldHook,
        see: ViewWindows | None = None,
        chat: ChatTemplate | None = None,
        estimator: RowEstimator | None = None,
    ) -> None:
        self._model = model
        self._delta = delta
        self._yield_hook = yield_hook
        self._see = see
        self._estimator = estimator
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.chat = chat
        self.spec = model.spec

    def states(self, texts: Sequence[str]) -> LowerStates:
        """The lower layers' output for them, looked up once."""
        has_end = not self.spec.family.decodes
        return self.states_of(encode(self.tokenizer, texts, self.max_tokens, has_end=has_end))

    def states_of(self, sequences: Sequence[NDArray[np.int64]]) -> LowerStates:
        """Likewise, of token ids."""
        return LowerStates(self._model, sequences, self._delta, self._yield_hook, self._see, self._estimator)


class TaskData(Protocol):
    """Examples made ready: what the network is given for them, and what it should say."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example; those of like length are trained on together."""

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Tokens of each example, those of all of its texts."""


DataT = TypeVar("DataT", bound=TaskData)


class Objective(Protocol[DataT]):
    """One task with its labels fixed."""

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the head's outputs; empty without a head."""

    @property
    def pooling(self) -> Pooling:
        """What the head reads."""

    def prepare(self, examples: Sequence[Any], texts: Preprocessor) -> DataT:
        """Examples of this task, with no other labels than these."""

    def loss(self, network: Network, part: DataT, chosen: Sequence[int]) -> Tensor:
        """Mean over the chosen examples; gradients flow into the adapter."""

    def judge(self, network: Network, part: DataT) -> Metrics:
        """Of the network's answers on the part."""

    def counts(self, part: DataT) -> tuple[int, ...]:
        """How often each label is true in the part."""

    def baseline(self, network: Network, learnt: DataT, judging: DataT) -> float:
        """The judging part's score for always answering what is most frequent where it was learnt; where nothing is,
        that of the network, which is not trained yet."""


class LabelObjective(Objective[DataT], Protocol[DataT]):
    """A task whose answers are labels."""

    def examine(self, network: Network, part: DataT) -> Evaluation:
        """As `judge`, and with it what was answered to each text."""
