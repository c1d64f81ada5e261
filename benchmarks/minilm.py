"""Distil MiniLM-L6 on real text: the base that the package ships for k = 3, and those that are measured at other k.

    python -m benchmarks.minilm                  # k = 3, into the package: what `make minilm` does
    python -m benchmarks.minilm --k 2 --out minilm-l6-k2.safetensors

Text: the glosses of WordNet, and the training part of the four-domain sentences without their labels; half of every
batch each. Neither the development nor the test part of the sentences is seen. A stopped run resumes where it
was. It computes on one thread, so that a machine of the same kind gives the same file, however many cores it has.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from hmi.process import tune_process

tune_process(os.environ)  # before anything imports torch

import torch  # noqa: E402
from rich.console import Console  # noqa: E402

from benchmarks.command import cache_folder  # noqa: E402
from benchmarks.glosses import fetch_glosses, read_glosses  # noqa: E402
from examples.data import Part, fetch_sentences, find_pretrained, read_sentences  # noqa: E402
from hmi.cli.render import ProgressBar, fidelity_table  # noqa: E402
from hmi.models.convert import shipped_diff_path  # noqa: E402
from hmi.spec import RowDtype  # noqa: E402
from hmi.training.distill import BaseReport, DistillConfig, EstimatorConfig, build_base  # noqa: E402
from hmi.training.reports import TrainProgress  # noqa: E402

NAME = "minilm-l6"
RECIPE = DistillConfig()
ESTIMATOR = EstimatorConfig()


def corpora(cache: Path) -> list[list[str]]:
    """The texts to distil on, fetched where they are not in the cache yet."""
    glosses = read_glosses(fetch_glosses(cache))
    archive, _ = fetch_sentences(cache)
    sentences = read_sentences(archive)
    return [
        [gloss for subject in glosses.values() for gloss in subject],
        [each.text for domain in sentences.values() for each in domain if each.part is Part.TRAIN],
    ]


def make_base(
    folder: Path,
    k: int,
    cache: Path,
    config: DistillConfig = RECIPE,
    estimator: EstimatorConfig | None = ESTIMATOR,
    *,
    difference: Path | None = None,
    on_progress: Callable[[TrainProgress], None] = lambda progress: None,
) -> BaseReport:
    """The base artifact of MiniLM-L6 at `k` in `folder`. See `hmi.training.distill.base.build_base`."""
    return build_base(
        find_pretrained(),
        folder,
        k,
        RowDtype.INT8,
        corpora(cache),
        config,
        estimator=estimator,
        difference=difference,
        on_progress=on_progress,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.minilm", description="Distils MiniLM-L6.")
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--out", type=Path, help="the difference's file (default: the package's own)")
    parser.add_argument("--folder", type=Path, help="the base artifact's folder (default: in the cache)")
    parser.add_argument("--steps", type=int, default=RECIPE.steps)
    parser.add_argument("--estimator-steps", type=int, default=ESTIMATOR.steps)
    parser.add_argument("--threads", type=int, default=1, help="more are faster, and give another file")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cache = cache_folder()
    folder = options.folder or cache / "bases" / f"{NAME}-k{options.k}"
    out = options.out or shipped_diff_path(NAME, options.k)
    out.parent.mkdir(parents=True, exist_ok=True)
    config = DistillConfig(steps=options.steps)
    with ProgressBar("training", "steps") as bar:
        report = make_base(
            folder,
            options.k,
            cache,
            config,
            dataclasses.replace(ESTIMATOR, steps=options.estimator_steps),
            difference=out,
            on_progress=lambda reached: bar.show_training(reached, f"error {reached.loss**0.5:.3f}"),
        )
    if options.json:
        print(json.dumps(dataclasses.asdict(report), indent=1))
    elif report.before and report.fitted and report.after:
        Console(width=100).print(fidelity_table(options.k, report.before, report.fitted, report.after))
        print(f"error of estimated rows {report.estimate_error:.3f}")
        print(f"{out}: {out.stat().st_size / 1e6:.2f} MB in {report.seconds / 60:.0f} min")


if __name__ == "__main__":
    main()
