"""What a rebuild costs a job that runs beside it.

A BERT-base with random weights and k = 6 answers a job whose rows are all held, alone and beside a rebuild, in
alternating rounds.
The rebuild has more rows to compute than it can before the job ends, and is paced as a worker paces it: steps of
`STEP_ROWS` rows, between which it gives way so that they make up `build_share` of the time. Its plan is made before the
job begins.

- `job_s`, `job_beside_rebuild_s`: medians of the rounds; `rebuild_costs_job` is their ratio less one.
- `rows_per_s_beside_job`, `rows_per_s_idle`: rows that the rebuild computed meanwhile, and that it computes alone.
- `unpaced_rebuild_costs_job`: the same without giving way.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import seconds_of_job
from hmi.bench import SHAPES, OneBase, make_base, make_tree, random_texts
from hmi.engine import Engine, EngineConfig
from hmi.errors import Cancelled
from hmi.items import Item, ModelRef, Task
from hmi.knowledge import Function, Keys, functions_of, pack
from hmi.knowledge.build import build_tree
from hmi.knowledge.counts import DomainCounts
from hmi.knowledge.plan import PreviousTree, TreePlan, plan_tree
from hmi.knowledge.store import entry_bytes
from hmi.settings import Settings
from hmi.spec import HPLMSpec
from worker.lifecycle import Pace

STEP_ROWS = 1024  # what `build_tree` computes between two calls of its progress
_BASE = "base"
_SHAPE, _K = "base", 6
_QUICK_ITEMS, _ITEMS = 300, 3000
_NEW_ROWS = 400_000  # more than any round has time for


def run(options: argparse.Namespace) -> dict[str, Any]:
    folder: Path = options.folder
    rounds = 1 if options.quick else 3
    spec = make_base(folder / _BASE, SHAPES[_SHAPE], _K)
    texts = random_texts(_QUICK_ITEMS if options.quick else _ITEMS)
    source = OneBase(_BASE, folder / _BASE, make_tree(folder / "tree", folder / _BASE, texts))
    share = Settings.model_fields["tree_build_share"].default
    with Engine(EngineConfig(device=options.device, dtype=options.dtype), source) as engine:
        items = [Item(ModelRef(_BASE, "general", None), Task.EMBED, text=text) for text in texts]
        engine.submit(items[: len(items) // 4]).result()  # uncounted: everything is loaded and prepared
        plan = _plan(spec)
        alone, paced, unpaced, computed = [], [], [], []
        for turn in range(rounds):
            alone.append(seconds_of_job(engine, items))
            build = _Build(engine, plan, spec, folder / f"paced {turn}", share)
            with build:
                paced.append(seconds_of_job(engine, items))
            computed.append(build.rows / paced[-1])
            with _Build(engine, plan, spec, folder / f"unpaced {turn}", 1.0):
                unpaced.append(seconds_of_job(engine, items))
        idle = _rows_per_second(engine, spec)
    job, beside = statistics.median(alone), statistics.median(paced)
    return {
        "rebuild_costs_job": beside / job - 1,
        "unpaced_rebuild_costs_job": statistics.median(unpaced) / job - 1,
        "build_share": share,
        "job_s": job,
        "job_beside_rebuild_s": beside,
        "rows_per_s_beside_job": statistics.median(computed),
        "rows_per_s_idle": idle,
    }


class _Build:
    """A rebuild in a thread of its own for as long as the block runs."""

    def __init__(self, engine: Engine, plan: TreePlan, spec: HPLMSpec, folder: Path, share: float) -> None:
        self.rows = 0
        self._engine = engine
        self._plan = plan
        self._spec = spec
        self._folder = folder
        self._ended = threading.Event()
        self._pace = Pace(share, engine.busy, self._check)
        self._thread = threading.Thread(target=self._run, name="rebuild")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _check(self) -> None:
        if self._ended.is_set():
            raise Cancelled("the job is over")

    def _run(self) -> None:
        try:
            build_tree(
                self._folder, self._plan, PreviousTree.empty(), self._compute, row_dtype=self._spec.row_dtype,
                hidden_size=self._spec.hidden_size, tolerance=0.0, progress=self._pace, chunk=STEP_ROWS,
            )  # fmt: skip
        except Cancelled:
            return
        raise RuntimeError("the rebuild was over before the job")

    def _compute(self, function: Function, keys: Keys) -> Any:
        rows = self._engine.compute_rows(function.base, keys, function.delta, fresh=True)
        self.rows += len(keys)
        return rows


def _plan(spec: HPLMSpec) -> TreePlan:
    parents = {"general": None}
    counts = {"general": DomainCounts(_windows(spec, _NEW_ROWS), np.ones(_NEW_ROWS))}
    row_bytes = entry_bytes(spec.row_dtype, spec.hidden_size)
    return plan_tree(counts, parents, functions_of(_BASE, parents, {}), {}, spec.vocab_size, 2**50, row_bytes)


def _rows_per_second(engine: Engine, spec: HPLMSpec) -> float:
    keys = _windows(spec, 4 * STEP_ROWS)
    begin = time.perf_counter()
    engine.compute_rows(_BASE, keys, fresh=True)
    return len(keys) / (time.perf_counter() - begin)


def _windows(spec: HPLMSpec, count: int) -> Keys:
    """So many n-grams, ascending; what computing a row costs depends on none."""
    ids = np.random.default_rng(5).integers(0, spec.vocab_size, (3, count + count // 50))
    keys = np.unique(pack(*ids))
    return keys[np.sort(np.random.default_rng(6).choice(len(keys), count, replace=False))]
