"""What goes into the engine and what comes out: one `Outcome` for every `Item`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from hmi.errors import HmiError, InvalidInput
from hmi.spec import MissPolicy

__all__ = [
    "MAX_LOGPROBS",
    "Classification",
    "Embedding",
    "Finish",
    "Generation",
    "GenerationParams",
    "Item",
    "ModelRef",
    "Outcome",
    "Sampling",
    "Tag",
    "Tagging",
    "Task",
    "TokenBytes",
    "TokenLogprobs",
]


MAX_LOGPROBS = 20
"""Alternatives that are told for a token, at most."""


class Task(StrEnum):
    CLASSIFY = "classify"
    EMBED = "embed"
    GENERATE = "generate"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the most likely one; else logits are divided by it.
        top_k: Only so many of the most likely tokens; 0: all.
        top_p: Of those only the fewest, most likely first, that together have this share of the probability.
        seed: Of the draws.

    Raises `InvalidInput` whose `param` names the field.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise InvalidInput(f"temperature must be a number from 0, not {self.temperature}", param="temperature")
        if self.top_k < 0:
            raise InvalidInput(f"top_k must be a whole number from 0, not {self.top_k}", param="top_k")
        if not 0 < self.top_p <= 1:
            raise InvalidInput(f"top_p must lie above 0 and at most at 1, not {self.top_p}", param="top_p")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    def draw(self, drawn: int) -> float:
        """The random draw after `drawn` others, uniform in 0..1."""
        return float(np.random.Generator(np.random.Philox(key=self.seed % 2**64, counter=drawn)).random())


@dataclass(frozen=True, slots=True)
class GenerationParams:
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
    sampling: Sampling = Sampling()
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
    """One sequence to run. Exactly one of `text`, `tokens` and `messages` is set.

    Attributes:
        tokens: Ids that already hold the special tokens.
        truncate_to: Longest sequence in tokens, special tokens included; None refuses a longer one
            with `ContextTooLong`.
        messages: Of a chat, (role, content); the model's chat template makes a text of them.
        params: Of a text that is to be continued.
    """

    model: ModelRef
    task: Task
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    truncate_to: int | None = None
    params: GenerationParams | None = None
    messages: tuple[tuple[str, str], ...] | None = None


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


@dataclass(frozen=True, slots=True, eq=False)
class TokenBytes:
    """What each token of a vocabulary stands for in a text; one table for all texts of a base model.

    Attributes:
        blob: The bytes of all tokens, one after the other; a token may hold a part of a character.
        starts: int32 `[vocabulary + 1]`: where each one's begin.
        special: Ids that stand for no text, whatever their names are.
    """

    blob: bytes
    starts: NDArray[np.int32]
    special: frozenset[int]

    def of(self, token: int) -> bytes:
        """A token's bytes, or a special one's name; nothing for an id that is no token's."""
        if not 0 <= token < len(self.starts) - 1:
            return b""
        return self.blob[self.starts[token] : self.starts[token + 1]]


@dataclass(frozen=True, slots=True, eq=False)
class TokenLogprobs:
    """What is told of `n` tokens that follow one another: the prompt's where `echo` asks for that, and the generated.

    Attributes:
        token_bytes: The vocabulary's bytes.
        ids: int32 `[n]`.
        logprobs: float32 `[n]`; NaN for a prompt's first token, which nothing precedes.
        best_ids, best_logprobs: int32 and float32 `[n, logprobs]`: the likeliest ones in their places, the likeliest
            first.
    """

    token_bytes: TokenBytes
    ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    best_ids: NDArray[np.int32]
    best_logprobs: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Generation:
    """Attributes:
    text: Of the tokens, without stop string and special tokens; after the prompt's, where `echo` asks for that.
    tokens: Generated, one that ends the text included.
    logprobs: Of the tokens, where the item asks for them.
    """

    text: str
    tokens: tuple[int, ...]
    finish: Finish
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Either a result or an error, and the tokens that were read (0 where none were)."""

    result: Classification | Tagging | Embedding | Generation | None
    error: HmiError | None
    tokens: int
