"""A job as a worker gives it to the engine: shards of many tenants' texts, adapters cold on disk, traced."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from hmi.bench.bases import make_base, make_tree
from hmi.bench.overlap import busy_share, hidden_share, intervals, length, union
from hmi.bench.shapes import SHAPES
from hmi.bench.tenants import MIXED, OneBase, forget_pages, make_adapter
from hmi.bench.text import random_texts
from hmi.engine import Engine, EngineConfig, Span, Tracer
from hmi.errors import InvalidInput
from hmi.items import Item, ModelRef, Outcome, Task

_BASE = "base"
_SHARD_ITEMS = 256
_SHARDS_AHEAD = 8  # submitted and not answered yet
_WARM_ITEMS = 128


@dataclass(frozen=True, slots=True)
class JobPlan:
    """`k` lower layers are looked up, and everything is found. Raises `InvalidInput` where it is no job."""

    shape: str = "minilm"
    k: int = 2
    items: int = 5_000
    tenants: int = 500

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise InvalidInput(f"shape {self.shape!r} is not one of {', '.join(SHAPES)}", param="shape")
        if not 0 <= self.k < SHAPES[self.shape].num_hidden_layers:
            raise InvalidInput(f"k must be below the {SHAPES[self.shape].num_hidden_layers} layers", param="k")
        if not 1 <= self.tenants <= self.items:
            raise InvalidInput("a job needs at least one tenant, and an item for each", param="tenants")


@dataclass(frozen=True, slots=True)
class Job:
    """What was made of a plan: files, and items in the order in which they are submitted."""

    plan: JobPlan
    source: OneBase
    items: tuple[Item, ...]
    warming: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run; the spans are those of the job alone, without loading and warming up."""

    items: int
    tokens: int  # of all items, special tokens included
    seconds: float  # from the first submission to the last outcome
    device: str
    dtype: str
    begin_ns: int
    spans: tuple[Span, ...]
    tracer: Tracer

    @property
    def seq_s(self) -> float:
        return self.items / self.seconds

    @property
    def device_busy_share(self) -> float:
        """From the device stage's first to its last moment."""
        return busy_share(self.spans)

    @property
    def device_busy_share_of_job(self) -> float:
        """From the first submission to the last outcome."""
        return length(union(intervals(self.spans, {"device"}))) / (self.seconds * 1e9)

    @property
    def fetch_hidden_share(self) -> float:
        """Of the time in which rows were looked up or adapters loaded."""
        return hidden_share(self.spans)


def make_job(folder: Path, plan: JobPlan) -> Job:
    """Write base model, tree and adapters into `folder`, which is empty or not there.

    A tenant's items stand together, as its shards would, so that first uses of adapters are spread over the job.
    """
    texts = random_texts(plan.items + _WARM_ITEMS)
    spec = make_base(folder / _BASE, SHAPES[plan.shape], plan.k)
    source = OneBase(_BASE, folder / _BASE, make_tree(folder / "tree", folder / _BASE, texts))
    (folder / "adapters").mkdir()
    names = [f"tenant-{number}" for number in range(plan.tenants)]
    warm = [f"warm-{number}" for number in range(len(MIXED))]  # tenants of no item: theirs are all cold
    for number, name in enumerate([*names, *warm]):
        source.adapters[name] = folder / "adapters" / f"{name}.safetensors"
        make_adapter(source.adapters[name], spec, *MIXED[number % len(MIXED)], seed=number)
    return Job(
        plan,
        source,
        tuple(_item(names[place * plan.tenants // plan.items], text) for place, text in enumerate(texts[_WARM_ITEMS:])),
        tuple(_item(warm[place % len(warm)], text) for place, text in enumerate(texts[:_WARM_ITEMS])),
    )


def run_job(job: Job, config: EngineConfig, *, trace_limit: int = 200_000) -> JobRun:
    """Run the job on an engine of its own, with every adapter on disk and nowhere else at the start.

    Raises the error of the first item that has one.
    """
    forget_pages(job.source.adapters.values())
    tracer = Tracer(trace_limit)
    with Engine(config, job.source, tracer) as engine:
        engine.load_base(_BASE)
        _check(engine.submit(job.warming).result())
        begin_ns = time.monotonic_ns()
        tokens = submit_all(engine, job.items)
        end_ns = time.monotonic_ns()
        device, dtype = str(engine.device), str(engine.dtype).removeprefix("torch.")
    spans = tuple(span for span in tracer.spans() if begin_ns <= span.begin_ns <= end_ns)
    return JobRun(len(job.items), tokens, (end_ns - begin_ns) / 1e9, device, dtype, begin_ns, spans, tracer)


def median_run(runs: Sequence[JobRun]) -> JobRun:
    """The run whose time is the median, of an even number the faster of the two in the middle."""
    middle = statistics.median_low(run.seconds for run in runs)
    return next(run for run in runs if run.seconds == middle)


def _item(tenant: str, text: str) -> Item:
    return Item(ModelRef(_BASE, "general", tenant), Task.CLASSIFY, text=text)


def submit_all(engine: Engine, items: Sequence[Item]) -> int:
    """Run all items with a few shards ahead, as a worker does. Gives the tokens that were read.

    Raises the error of the first item that has one.
    """
    ahead: deque[Future[list[Outcome]]] = deque()
    tokens = 0
    for start in range(0, len(items), _SHARD_ITEMS):
        if len(ahead) >= _SHARDS_AHEAD:
            tokens += _check(ahead.popleft().result())
        ahead.append(engine.submit(items[start : start + _SHARD_ITEMS]))
    return tokens + sum(_check(future.result()) for future in ahead)


def _check(outcomes: Sequence[Outcome]) -> int:
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return sum(outcome.tokens for outcome in outcomes)
