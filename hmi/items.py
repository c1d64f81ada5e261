"""Input and output of the engine: one `Outcome` for each `Item`."""

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


MAX_LOGPROBS = 20  # alternatives for each token, at most


class Task(StrEnum):
    CLASSIFY = "classify"
    EMBED = "embed"
    GENERATE = "generate"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Raises `InvalidInput` whose `param` names the field."""

    temperature: float = 1.0  # 0 takes the most likely token; else logits are divided by it
    top_k: int = 0  # only so many of the most likely tokens; 0: all
    top_p: float = 1.0  # of those, only the most likely ones that together have this share of the probability
    seed: int = 0  # of the draws

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
    """How a text is generated. Raises `InvalidInput` whose `param` names the field."""

    max_tokens: int = 16  # generated at most; 0 generates nothing, and scores the prompt
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()  # strings that end the text and are not in it
    logprobs: int | None = None  # alternatives reported for each token, with its own log-probability; None: nothing
    echo: bool = False  # the result begins with the prompt, and its log-probabilities with the prompt's
    ignore_eos: bool = False  # end-of-sequence tokens do not end the text

    def __post_init__(self) -> None:
        if self.max_tokens < 0:
            raise InvalidInput(f"max_tokens must be a whole number from 0, not {self.max_tokens}", param="max_tokens")
        if not all(self.stop):
            raise InvalidInput("a stop string must not be empty", param="stop")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise InvalidInput(f"logprobs must lie in 0..{MAX_LOGPROBS}, not {self.logprobs}", param="logprobs")


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A tenant's model by content, never by name: the same name with new weights is another ref."""

    base: str  # artifact digest of the hPLM
    domain: str  # name of the domain whose ancestor chain is looked up
    adapter: str | None  # artifact digest; None is the base model alone
    miss_policy: MissPolicy = MissPolicy.EXACT
    # Artifact digest of the nearest domain delta on the ancestor chain; None where there is none. The model can use no
    # rows that were computed with another delta, or without one.
    delta: str | None = None
    # Rows computed for misses serve models of one scope alone, so that no tenant outside can tell by the time which are
    # kept: the id of a domain that not all tenants may use, or "" for all others.
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One sequence to run. Exactly one of `text`, `tokens` and `messages` is set."""

    model: ModelRef
    task: Task
    text: str | None = None
    tokens: tuple[int, ...] | None = None  # ids, special tokens included
    truncate_to: int | None = None  # tokens, special ones included; None refuses too long an input (`ContextTooLong`)
    params: GenerationParams | None = None  # of a text to generate
    messages: tuple[tuple[str, str], ...] | None = None  # (role, content) of a chat, for the model's chat template
    # Bitmap of the tenant that its lookups are counted for (`hmi.tenant_bits`), 0: unknown; None: not counted
    requester: int | None = 0


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
    """The most likely label of the word from character `start` to `end` (excluded), with its score in 0..1."""

    start: int
    end: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Tagging:
    """A label out of `labels` for each word of the (truncated) text, in its order."""

    labels: tuple[str, ...]
    tags: tuple[Tag, ...]


@dataclass(frozen=True, slots=True)
class Embedding:
    """A pooled, L2-normalised vector, float32 `[hidden]`."""

    vector: NDArray[np.float32]


class Finish(StrEnum):
    """Why a text ends: with an end-of-sequence token or a stop string, or at its most tokens."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, eq=False)
class TokenBytes:
    """The bytes of each token of a vocabulary; one table for all texts of a base model."""

    blob: bytes  # of all tokens, one after the other; a token may hold a part of a character
    starts: NDArray[np.int32]  # [vocabulary + 1], where each token's bytes begin
    special: frozenset[int]  # ids that stand for no text, whatever their names are

    def of(self, token: int) -> bytes:
        """A token's bytes, or a special one's name; nothing for an id without a token."""
        if not 0 <= token < len(self.starts) - 1:
            return b""
        return self.blob[self.starts[token] : self.starts[token + 1]]


@dataclass(frozen=True, slots=True, eq=False)
class TokenLogprobs:
    """Log-probabilities of `n` successive tokens: the prompt's with `echo`, and the generated ones."""

    token_bytes: TokenBytes  # of the vocabulary
    ids: NDArray[np.int32]  # [n]
    logprobs: NDArray[np.float32]  # [n]; NaN for a prompt's first token, which nothing precedes
    best_ids: NDArray[np.int32]  # [n, logprobs], the most likely tokens in each place, the most likely first
    best_logprobs: NDArray[np.float32]  # [n, logprobs]


@dataclass(frozen=True, slots=True)
class Generation:
    text: str  # without stop string and special tokens; with `echo` after the prompt's
    tokens: tuple[int, ...]  # generated, an end-of-sequence token included
    finish: Finish
    logprobs: TokenLogprobs | None = None  # where the item asks for them


@dataclass(frozen=True, slots=True)
class Outcome:
    """Either a result or an error, and the number of input tokens (0 where none were read)."""

    result: Classification | Tagging | Embedding | Generation | None
    error: HmiError | None
    tokens: int
