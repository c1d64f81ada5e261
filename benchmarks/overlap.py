"""What the pipeline hides: one job with all stages beside each other, and with parts of that switched off.

    python -m benchmarks.overlap [--quick] [--json] [--shape base] [--device cuda] [--dtype bfloat16] [--trace FILE]

The job is 5,000 texts (`--quick`: 600) of 8 to 64 tokens, ten for each tenant, in shards as a worker submits them.
Each tenant has an adapter of its own kind and rank, which is on disk and nowhere else when the job begins. The
lower `k` layers are looked up in a tree that holds every window. Weights are random; texts are made up of
random words and tokenised by WordPiece.

Every run has a new engine, warmed up with other tenants. Variants take turns; `seq_s` is the median of
the rounds, from the first submission to the last outcome, and `ratio` is that over `all_on`'s. Of the all-on run of
median time, from its trace:

- `device_busy_share`: time in which the device stage ran, over the time from its first to its last moment;
  `device_busy_share_of_job` is over the whole job, with the wait for the first batch and the last answers in it.
- `fetch_hidden_share`: of the time in which rows were looked up or adapters loaded (in however many threads),
  the share in which the device stage was running too.

A processor that is the device as well lends its cores to all stages: there a stage that is hidden can still
slow down the one that hides it. The shares do not show that; the ablation does.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import as_table, make_parser
from benchmarks.harness import alternate, machine
from hmi.bench import SHAPES, Job, JobPlan, JobRun, make_job, median_run, run_job
from hmi.engine import EngineConfig, Overlap

ALL_ON = "all_on"
_UNCOUNTED = 600  # items
_OFF = Overlap(tokenise=False, prefetch=False, fetch=False, finish=False)
VARIANTS = {
    ALL_ON: Overlap(),
    **{f"no_{field.name}": dataclasses.replace(Overlap(), **{field.name: False}) for field in dataclasses.fields(_OFF)},
    "all_off": _OFF,
}


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    plan = JobPlan(options.shape, options.k, options.items, options.tenants)
    config = EngineConfig(device=options.device, dtype=options.dtype)
    with tempfile.TemporaryDirectory() as name:
        runs = _run_all(make_job(Path(name), plan), config, options.rounds)
    if options.trace:
        median_run(runs[ALL_ON]).tracer.write(options.trace)
    report = _report(plan, runs, options.rounds)
    print(json.dumps(report, indent=1) if options.json else _as_text(report))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("overlap", __doc__)
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--k", type=int, help="lower layers that are looked up; default: 2, for --shape base 6")
    parser.add_argument("--items", type=int, help="default: 5000, with --quick 600")
    parser.add_argument("--tenants", type=int, help="default: one for ten items")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write the all-on run's trace here, for Perfetto")
    options = parser.parse_args(argv)
    if options.items is None:
        options.items = 600 if options.quick else 5_000
    if options.tenants is None:
        options.tenants = max(1, options.items // 10)
    if options.k is None:
        options.k = 6 if options.shape == "base" else 2
    return options


def _run_all(job: Job, config: EngineConfig, rounds: int) -> dict[str, list[JobRun]]:
    runs: dict[str, list[JobRun]] = {name: [] for name in VARIANTS}

    def run(name: str) -> float:
        runs[name].append(run_job(job, dataclasses.replace(config, overlap=VARIANTS[name])))
        return runs[name][-1].seconds

    run_job(dataclasses.replace(job, items=job.items[:_UNCOUNTED]), config)  # a process's first run is slower
    alternate({name: partial(run, name) for name in VARIANTS}, rounds)
    return runs


def _report(plan: JobPlan, runs: dict[str, list[JobRun]], rounds: int) -> dict[str, Any]:
    shown = median_run(runs[ALL_ON])
    rates = {name: statistics.median(run.seq_s for run in each) for name, each in runs.items()}
    return {
        **dataclasses.asdict(plan),
        "mean_tokens": round(shown.tokens / shown.items, 1),
        "rounds": rounds,
        "device": shown.device,
        "dtype": shown.dtype,
        "machine": machine(torch.device(shown.device)),
        "device_busy_share": round(shown.device_busy_share, 4),
        "device_busy_share_of_job": round(shown.device_busy_share_of_job, 4),
        "fetch_hidden_share": round(shown.fetch_hidden_share, 4),
        "ablation": {
            name: {"seq_s": round(rate, 1), "ratio": round(rate / rates[ALL_ON], 3)} for name, rate in rates.items()
        },
    }


def _as_text(report: dict[str, Any]) -> str:
    ablation = report["ablation"]
    lines = [f"{key}: {value}" for key, value in report.items() if key != "ablation"]
    rows = [(name, each["seq_s"], each["ratio"]) for name, each in ablation.items()]
    return "\n".join([*lines, "", as_table(("overlap", "seq/s", "over all on"), rows)])


if __name__ == "__main__":
    main()
