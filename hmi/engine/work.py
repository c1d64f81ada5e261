"""What travels through the pipeline: a submission, its sequences, and batches of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from hmi.adapters.maths import AdapterPlan, HeadPlan, SharedLora, TokenHeadPlan
from hmi.adapters.tiers import Resident
from hmi.engine.estimate import EstimateGroup
from hmi.engine.hosted import LoadedModel
from hmi.errors import HmiError, Overloaded
from hmi.items import Item, Outcome
from hmi.knowledge import Keys

__all__ = ["Batch", "SequenceTask", "Submission", "adapter_key", "to_hmi_error"]

_log = logging.getLogger(__name__)

_LOGGED = "items were settled with this"


def adapter_key(base: str, digest: str) -> str:
    return f"{base}/{digest}"


class Submission:
    """The items of one `submit` and the future that waits for them.

    Each item's outcome is set once; a second one for the same item is dropped. When the last is in, the
    future is resolved, whatever the outcomes are.

    Args:
        answered: Called after each outcome, on whatever thread has it; must be quick and raise nothing.
    """

    def __init__(self, items: Sequence[Item], answered: Callable[[], None] | None = None) -> None:
        self.items = tuple(items)
        self._answered = answered
        self.future: Future[list[Outcome]] = Future()
        self._outcomes: list[Outcome | None] = [None] * len(self.items)
        self._missing = len(self.items)
        self._lock = threading.Lock()
        if not self.items:
            self.future.set_result([])

    def settle(self, index: int, outcome: Outcome) -> None:
        with self._lock:
            if self._outcomes[index] is not None:
                return
            self._outcomes[index] = outcome
            self._missing -= 1
            outcomes = [each for each in self._outcomes if each is not None] if not self._missing else None
        if self._answered is not None:
            self._answered()
        if outcomes is not None and self.future.set_running_or_notify_cancel():
            self.future.set_result(outcomes)


@dataclass(slots=True)
class SequenceTask:
    """One sequence on its way: ids int64 `[T]`, special tokens included."""

    submission: Submission
    index: int
    ids: NDArray[np.int64]
    base: LoadedModel

    @property
    def item(self) -> Item:
        return self.submission.items[self.index]

    @property
    def adapter(self) -> str | None:
        """The adapter's key in the tiers: packed for one base model, it is of no use to another."""
        digest = self.item.model.adapter
        return adapter_key(self.base.digest, digest) if digest else None

    def settle(self, outcome: Outcome) -> None:
        self.submission.settle(self.index, outcome)

    def fail(self, error: HmiError) -> None:
        self.settle(Outcome(result=None, error=error, tokens=0))


@dataclass(frozen=True, slots=True, eq=False)
class WindowGroup:
    """Windows to compute by one function.

    Attributes:
        function: Its digest.
        delta: What it adds to the base's lower layers; None for the base as it is.
        keys: uint64 `[n]`, ascending, each once.
    """

    function: str
    delta: SharedLora | None
    keys: Keys


@dataclass(slots=True)
class Batch:
    """Sequences that run together, all of one base model, and what each stage adds to them.

    Tensors are on the device.

    Attributes:
        number: Counts batches of this engine from 1; names the batch in traces.
        residents: By row, the adapter's place in the bank; None where a row runs the base model alone.
        pinned: Keys of adapters that stay in the bank for this batch.
        ids: int64 `[B, T]`, padded.
        mask: bool `[B, T]`, True for a real token.
        full: No row is padded.
        codes, scales: Looked-up rows as stored: int8 or float16 `[m, H]`, for int8 float32 `[m]`; None at k = 0.
        positions: int64 `[B * T]`, which of them each token has; that of zeros for padding and where one is missing.
        windows: int64 `[N, 3]`: the unique windows that must be computed, group after group.
        groups: Which function computes which of them; together N keys.
        places: int64 `[M]`: flat positions in `B * T` of missing rows.
        sources: int64 `[M]`: which of `windows` each of them gets.
        estimates: Windows that are estimated instead.
        plan, heads, taggers: How adapters, heads of whole sequences and heads of tokens are applied; none where nobody
            asks for such classes.
        first_only: Nobody reads more than the first token's last state.
        ready: On CUDA, when all of the above has arrived.
        computed: float32 `[N, H]`, the windows' rows, once they are computed.
        logits: float32 `[B, most labels]`; pooled: float32 `[B, H]`, normalised.
        tags, tag_scores: int64 and float32 `[rows of taggers, T]`: each token's most likely label.
    """

    base: LoadedModel
    works: list[SequenceTask]
    number: int = 0
    residents: list[Resident | None] = field(default_factory=list)
    pinned: list[str] = field(default_factory=list)
    ids: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    full: bool = False
    codes: torch.Tensor | None = None
    scales: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    windows: torch.Tensor | None = None
    groups: list[WindowGroup] = field(default_factory=list)
    places: torch.Tensor | None = None
    sources: torch.Tensor | None = None
    estimates: list[EstimateGroup] = field(default_factory=list)
    plan: AdapterPlan | None = None
    heads: HeadPlan | None = None
    taggers: TokenHeadPlan | None = None
    first_only: bool = False
    ready: torch.cuda.Event | None = None
    computed: torch.Tensor | None = None
    logits: NDArray[np.float32] | None = None
    pooled: NDArray[np.float32] | None = None
    tags: NDArray[np.int64] | None = None
    tag_scores: NDArray[np.float32] | None = None

    @property
    def width(self) -> int:
        """Tokens of a row, padding counted: an even number, for what is computed is prepared for each width anew."""
        longest = max(len(work.ids) for work in self.works)
        return min(longest + longest % 2, self.base.spec.max_positions)

    @property
    def tokens(self) -> int:
        """Real tokens of all rows."""
        return sum(len(work.ids) for work in self.works)

    def fail(self, error: HmiError) -> None:
        for work in self.works:
            work.fail(error)


def to_hmi_error(error: BaseException, tokens: int | None = None) -> HmiError:
    """What an item that met this error is settled with.

    Of an error that is not our own that is its type alone, for the tenant reads it and its message may name files and
    processes of ours; the log has it whole, once however many items it is for.

    Args:
        tokens: Of the one sequence that met it, where there was one.
    """
    if isinstance(error, HmiError):
        return error
    where = "this input" if tokens is None else f"a sequence of {tokens} tokens"
    if isinstance(error, torch.OutOfMemoryError):
        return Overloaded(f"the device has no room for {where}")
    if _LOGGED not in getattr(error, "__notes__", ()):
        error.add_note(_LOGGED)
        _log.error("the engine failed on %s: %s: %s", where, type(error).__name__, error)
    return HmiError(f"the engine failed on this input ({type(error).__name__})")
