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

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hmi.process import tune_process

tune_process(os.environ)  # before anything imports torch

from benchmarks.command import as_table, cache_folder, make_parser, report_progress  # noqa: E402
from benchmarks.harness import machine  # noqa: E402
from benchmarks.minilm import corpora  # noqa: E402
from benchmarks.recipes.learning import Learner, Result, Text, read_text  # noqa: E402
from benchmarks.recipes.plan import FULL, QUICK, VARIANTS, Plan  # noqa: E402
from examples.data import find_pretrained  # noqa: E402
from hmi.devices import resolve_device, resolve_dtype  # noqa: E402
from hmi.training.distill import Fidelity  # noqa: E402

_HEADER = (
    *("recipe", "lookup", "last", "pooled", "thinned: lookup", "last", "pooled"),
    *("row bytes", "MB", "window", "token"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("recipes", __doc__)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="NAME", help=f"some of {', '.join(VARIANTS)}")
    parser.add_argument("--steps", type=int, help=f"of each distillation (default: {FULL.steps})")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", default=cache_folder(), help="of texts")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else FULL
    plan = replace(plan, steps=options.steps or plan.steps)
    device = resolve_device(options.device)
    source = find_pretrained()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = read_text(corpora(options.cache), source, folder / "read", plan)
        learner = Learner(source, folder, text, plan, device, resolve_dtype(options.dtype, device))
        results = learner.measure({name: VARIANTS[name] for name in options.only or VARIANTS}, report_progress)
    report = make_report(results, text, plan, machine(device))
    print(json.dumps(report, indent=1) if options.json else as_text(report))


def make_report(results: Mapping[str, Result], text: Text, plan: Plan, machine: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-ready, in the order of `VARIANTS`, whatever was done first."""
    return {
        "plan": asdict(plan),
        "machine": dict(machine),
        "texts": [len(corpus) for corpus in text.seen],
        "judges": len(text.judges),
        "recipes": {
            name: {
                "about": variant.about,
                "k": variant.training.k,
                "keep": variant.keep,
                **asdict(results[name]),
            }
            for name, variant in VARIANTS.items()
            if name in results
        },
    }


def as_text(report: Mapping[str, Any]) -> str:
    """The table, and below it what each line is."""
    plan, recipes = report["plan"], report["recipes"]
    rows = [
        (
            name,
            *_errors(each["whole"]),
            *_errors(each["thinned"]),
            each["costs"]["row_bytes"],
            f"{each['difference_bytes'] / 1e6:.2f}",
            each["costs"]["window"],
            each["costs"]["token"],
        )
        for name, each in recipes.items()
    ]
    return "\n".join(
        [
            f"{plan['steps']} steps of {plan['batch_size']} texts, judged by {report['judges']} others",
            "Errors relative to the pretrained model: after the lookup, after the last layer, of its mean over a text.",
            "Thinned: of windows as a tree leaves them that does not know the text.",
            "A missing window, and a looked-up token: multiply-adds over the pretrained model's for a token.",
            "",
            as_table(_HEADER, rows),
            "",
            *(f"{name}: {each['about']}" for name, each in recipes.items()),
        ]
    )


def _errors(fidelity: Mapping[str, Any]) -> tuple[float, float, float]:
    found = Fidelity(tuple(fidelity["layers"]), fidelity["pooled"])
    return found.lower, found.upper, found.pooled


if __name__ == "__main__":
    main()
