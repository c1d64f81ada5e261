"""The table by which the recipe for making a base was chosen: fidelity against bytes and arithmetic.

    python -m benchmarks.recipes                         # everything: under an hour on two free cores
    python -m benchmarks.recipes --only product svd      # some lines of it
    python -m benchmarks.recipes --quick                 # a minute: that everything runs, nothing about recipes

Every recipe is `hmi.training.distill.student` with one thing changed: same pretrained model (MiniLM-L6), same text
(`benchmarks.minilm`), same steps, same batches. k layers are looked up, 1 to L / 2; rows have one vector or three;
states are compared after every layer or the last, with attention or without; windows lose neighbours more or less
often; the difference from the pretrained model is learnt, or kept, in several ways. All are judged by the same texts,
which none has seen, with rows rounded as stored: with whole windows, and with windows as a tree leaves them that does
not know the text. Few steps tell recipes apart, not how far the best one goes: that says `benchmarks.minilm`, and
`benchmarks.accuracy` what the base so made costs in accuracy.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hmi.process import tune_process

tune_process(os.environ)  # before anything imports torch

from benchmarks.command import add_options, cache_folder  # noqa: E402
from benchmarks.harness import machine  # noqa: E402
from benchmarks.minilm import corpora  # noqa: E402
from benchmarks.recipes.learning import Learner, read_text  # noqa: E402
from benchmarks.recipes.plan import FULL, QUICK, VARIANTS  # noqa: E402
from benchmarks.recipes.report import as_text, make_report  # noqa: E402
from examples.data import find_pretrained  # noqa: E402
from hmi.devices import resolve_device, resolve_dtype  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="NAME", help=f"some of {', '.join(VARIANTS)}")
    parser.add_argument("--steps", type=int, help=f"of each distillation (default: {FULL.steps})")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", default=cache_folder(), help="of texts")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else FULL
    plan = dataclasses.replace(plan, steps=options.steps or plan.steps)
    device = resolve_device(options.device)
    source = find_pretrained()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = read_text(corpora(options.cache), source, folder / "read", plan)
        learner = Learner(source, folder, text, plan, device, resolve_dtype(options.dtype, device))
        results = learner.measure({name: VARIANTS[name] for name in options.only or VARIANTS}, _say)
    report = make_report(results, text, plan, machine(device))
    print(json.dumps(report, indent=1) if options.json else as_text(report))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
