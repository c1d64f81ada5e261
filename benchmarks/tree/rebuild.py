"""How long a rebuild takes and what it writes, against the number of entries: the first version, the next one with 5 %
new n-grams, and one in which nothing is new.

The base model is a BERT-base with random weights and k = 6, at work as a worker's engine has it; nothing else runs. A
rebuild is everything that a worker does for one: reading and checking the old version, planning, computing and writing,
recomputing a sample, and storing the tables as artifacts. Counting, and the catalog, are not in it.

- `full_s`: of the first version, which computes every row.
- `incremental_s`: of the next one, in which 5 % of the n-grams are new and as many are gone; the median of the rounds.
  Of it `check_s`, `plan_s`, `build_s`, `verify_s` and `store_s`; `computed` are its new rows.
- `unchanged_s`: of one with the same counts. Nothing is computed: what is left is reading, hashing and writing.
- `incremental_over_full` is that of the largest number of entries.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving import open_built_tree
from hmi.artifacts import ArtifactStore
from hmi.bench import SHAPES, OneBase, make_base
from hmi.engine import Engine, EngineConfig
from hmi.knowledge import Function, Keys, functions_of, pack
from hmi.knowledge.build import build_tree, verify_sample
from hmi.knowledge.counts import DomainCounts
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.plan import PreviousTree, plan_tree
from hmi.knowledge.store import entry_bytes
from hmi.spec import HPLMSpec
from hmi.storage import Storage

_BASE = "base"
_SHAPE, _K = "base", 6
_QUICK, _FULL = (10_000,), (20_000, 50_000, 150_000)  # entries, beside the unigrams of the vocabulary
_NEW_SHARE = 0.05
_SHARED_SHARE = 0.2  # of n-grams: looked up in two domains, and so held by their parent
_SAMPLE_ROWS = 64
_TOLERANCE = 0.05
_PARENTS = {"general": None, "reviews": "general", "movies": "reviews", "products": "reviews", "news": "general"}
_LEAVES = ("movies", "products", "news")

_Result = TypeVar("_Result")


def run(options: argparse.Namespace) -> dict[str, Any]:
    folder: Path = options.folder
    sizes, rounds = (_QUICK, 1) if options.quick else (_FULL, 3)
    spec = make_base(folder / _BASE, SHAPES[_SHAPE], _K)
    empty = KnowledgeTree(0, _PARENTS, {}, spec.row_dtype, spec.hidden_size)
    config = EngineConfig(device=options.device, dtype=options.dtype)
    with Engine(config, OneBase(_BASE, folder / _BASE, empty)) as engine:
        engine.load_base(_BASE)
        rebuilds = [_measure(engine, spec, folder / str(size), size, rounds) for size in sizes]
        device, dtype = str(engine.device), str(engine.dtype).removeprefix("torch.")
    return {
        "incremental_over_full": rebuilds[-1]["ratio"],
        "rebuild_device": device,
        "rebuild_dtype": dtype,
        "rebuild": rebuilds,
    }


def _measure(engine: Engine, spec: HPLMSpec, folder: Path, size: int, rounds: int) -> dict[str, Any]:
    """One row of the report: the first version of about so many entries, and what follows it."""
    asked = _windows(spec, size, seed=0)
    fresh = _windows(spec, int((size + spec.vocab_size) * _NEW_SHARE), seed=1)
    gone = np.random.default_rng(2).choice(len(asked), len(fresh), replace=False)
    changed = np.union1d(np.delete(asked, gone), fresh)
    _compute(engine)(Function(_BASE), asked[:2048])  # uncounted: the first products prepare themselves
    first = _Version(engine, spec, folder / "full", asked, None)
    runs: dict[str, list[_Version]] = {"incremental": [], "unchanged": []}
    for turn in range(rounds):
        for name, keys in (("incremental", changed), ("unchanged", asked)):
            runs[name].append(_Version(engine, spec, folder / f"{name} {turn}", keys, first.tree))
    incremental = sorted(runs["incremental"], key=lambda each: each.seconds)[(rounds - 1) // 2]
    return {
        "entries": first.tree.entries,
        "bytes": first.tree.bytes,
        "full_s": first.seconds,
        "computed_per_s": first.computed / first.steps["build_s"],
        "incremental_s": incremental.seconds,
        "computed": incremental.computed,
        **incremental.steps,
        "unchanged_s": statistics.median(each.seconds for each in runs["unchanged"]),
        "ratio": incremental.seconds / first.seconds,
    }


class _Version:
    """A version that was built, and how long each step took."""

    def __init__(self, engine: Engine, spec: HPLMSpec, folder: Path, asked: Keys, old: KnowledgeTree | None) -> None:
        self.steps: dict[str, float] = {}
        functions = functions_of(_BASE, _PARENTS, {})
        store = ArtifactStore(Storage((folder / "artifacts").as_uri()), folder / "cache")
        begin = time.perf_counter()
        known = self._step("check_s", lambda: PreviousTree.read(old, tolerance=_TOLERANCE, built_tolerance=_TOLERANCE))
        plan = self._step(
            "plan_s",
            lambda: plan_tree(
                _counts(asked), _PARENTS, functions, known.held, spec.vocab_size, 2**50,
                entry_bytes(spec.row_dtype, spec.hidden_size), backoff=known.backoff,
            ),
        )  # fmt: skip
        report = self._step(
            "build_s",
            lambda: build_tree(
                folder, plan, known, _compute(engine), row_dtype=spec.row_dtype, hidden_size=spec.hidden_size,
                tolerance=_TOLERANCE, progress=lambda _: None,
            ),
        )  # fmt: skip
        self.computed = report.computed
        self.tree = open_built_tree(folder, plan, spec)
        self._step(
            "verify_s",
            lambda: verify_sample(self.tree, functions, _compute(engine), _SAMPLE_ROWS, tolerance=_TOLERANCE),
        )
        self._step("store_s", lambda: [store.put_folder(table.folder) for table in self.tree.tables.values()])
        self.seconds = time.perf_counter() - begin

    def _step(self, name: str, work: Callable[[], _Result]) -> _Result:
        begin = time.perf_counter()
        result = work()
        self.steps[name] = time.perf_counter() - begin
        return result


def _compute(engine: Engine) -> Callable[[Function, Keys], NDArray[np.float32]]:
    return lambda function, keys: engine.compute_rows(function.base, keys, function.delta, fresh=True)


def _windows(spec: HPLMSpec, count: int, seed: int) -> Keys:
    """So many n-grams, less the few that are drawn twice, ascending."""
    ids = np.random.default_rng(seed).integers(0, spec.vocab_size, (3, count))
    return np.unique(pack(*ids))


def _counts(asked: Keys) -> dict[str, DomainCounts]:
    """Which domains look up which n-grams, by the n-gram alone, so that it is the same in every version."""
    drawn = (asked * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    home, is_shared = drawn % np.uint64(len(_LEAVES)), drawn % np.uint64(1000) < 1000 * _SHARED_SHARE
    counts = {}
    for place, domain in enumerate(_LEAVES):
        keys = asked[(home == place) | (is_shared & (home == (place + 1) % len(_LEAVES)))]
        counts[domain] = DomainCounts(keys, 1.0 + (keys % np.uint64(97)).astype(np.float64))
    return counts
