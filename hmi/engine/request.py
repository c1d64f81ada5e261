"""What goes into the engine and what comes out: one `Outcome` for every `Item`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from hmi.errors import HmiError
from hmi.spec import MissPolicy

__all__ = ["Classification", "Embedding", "Item", "ModelRef", "Outcome", "Tag", "Tagging", "Task"]


class Task(StrEnum):
    CLASSIFY = "classify"
    EMBED = "embed"


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
    """

    model: ModelRef
    task: Task
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    truncate_to: int | None = None


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """Either a result or an error, and the tokens that were read (0 where none were)."""

    result: Classification | Tagging | Embedding | None
    error: HmiError | None
    tokens: int
