"""What goes into the engine and what comes out: one `Outcome` for every `Item`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from hmi.engine.generation.sampling import MAX_LOGPROBS, Sampling
from hmi.errors import HmiError, InvalidInput
from hmi.spec import MissPolicy

__all__ = [
    "Classification",
    "Embedding",
    "Finish",
    "Generation",
    "Item",
    "ModelRef",
    "Outcome",
    "Tag",
    "Tagging",
    "Task",
    "TokenChance",
    "Wish",
]


class Task(StrEnum):
    CLASSIFY = "classify"
    EMBED = "embed"
    GENERATE = "generate"


@dataclass(frozen=True, slots=True)
class Wish:
    """How a text is continued.

    Attributes:
        max_tokens: Generated at most; 0 generates nothing, for those who only ask for the prompt's probabilities.
        stop: Strings that end the text and are not in it.
        logprobs: So many alternatives are told for each token, beside its own log-probability; None tells nothing.
        echo: The prompt's tokens are told of too, where `logprobs` are asked for.
        ignore_eos: What ends a text does not end it.

    Raises `InvalidInput` whose `param` names the field.
    """

    max_tokens: int = 16
    sampling: Sampling = Sampling()  # noqa: RUF009 - frozen
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    echo: bool = False
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens < 0:
            raise InvalidInput(f"max_tokens must be a whole number from 0, not {self.max_tokens}", param="max_tokens")
        if not all(self.stop):
            raise InvalidInput("a stop string must not be empty", param="stop")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise InvalidInput(f"logprobs must lie in 0..{MAX_LOGPROBS}, not {self.logprobs}", param="logprobs")


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A tenant's model by content, never by name: the same name with new weights is another ref.

    Attributes:
        base: Artifact digest of the hPLM.
        domain: Name of the domain whose line of ancestors is looked up.
        adapter: Artifact digest of the adapter; None is the base model alone.
        delta: Artifact digest of the nearest domain delta on the domain's line; None where there is none. Rows that
            another delta, or none, gave are of no use to the model.
    """

    base: str
    domain: str
    adapter: str | None
    miss_policy: MissPolicy = MissPolicy.EXACT
    delta: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One sequence to run. Exactly one of `text` and `tokens` is set.

    Attributes:
        tokens: Ids that already hold the special tokens.
        truncate_to: Longest sequence in tokens, special tokens included; None refuses a longer one
            with `ContextTooLong`.
        wish: Of a text that is to be continued.
    """

    model: ModelRef
    task: Task
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    truncate_to: int | None = None
    wish: Wish | None = None


@dataclass(frozen=True, slots=True)
class Classification:
    """Probabilities in the order of `labels`: a softmax, or sigmoids for a multi-label head."""

    labels: tuple[str, ...]
    probs: tuple[float, ...]

    @property
    def label(self) -> str:
        return self.labels[max(range(len(self.probs)), key=self.probs.__getitem__)]


@dataclass(frozen=True, slots=True)
class Tag:
    """Characters `start` to `end` (excluded) are a word of the text, `label` its most likely one, at `score` 0..1."""

    start: int
    end: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Tagging:
    """A label for each word that was read, in the order of the text, out of `labels`."""

    labels: tuple[str, ...]
    tags: tuple[Tag, ...]


@dataclass(frozen=True, slots=True)
class Embedding:
    """A pooled, L2-normalised vector, float32 `[hidden]`."""

    vector: NDArray[np.float32]


class Finish(StrEnum):
    """Why a text ends: with what ends texts or a stop string, or at the most tokens that it may have."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class TokenChance:
    """Of one token: its log-probability under the model, and the most likely ones in its place with theirs."""

    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """Attributes:
    text: Of the tokens, without stop string and special tokens.
    tokens: Generated, one that ends the text included.
    chances: Of these tokens, where they were asked for.
    prompt: Of the prompt's tokens, likewise; None for the first, which nothing precedes.
    """

    text: str
    tokens: tuple[int, ...]
    finish: Finish
    chances: tuple[TokenChance, ...] = ()
    prompt: tuple[TokenChance | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Either a result or an error, and the tokens that were read (0 where none were)."""

    result: Classification | Tagging | Embedding | Generation | None
    error: HmiError | None
    tokens: int
