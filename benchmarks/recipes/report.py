"""The figures as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.command import as_table
from benchmarks.recipes.learning import Result, Text
from benchmarks.recipes.plan import VARIANTS, Plan
from hmi.training.distill import Fidelity

_HEADER = (
    *("recipe", "lookup", "last", "pooled", "thinned: lookup", "last", "pooled"),
    *("row bytes", "MB", "window", "token"),
)


def make_report(results: Mapping[str, Result], text: Text, plan: Plan, machine: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-ready, in the order of `VARIANTS`, whatever was done first."""
    return {
        "plan": asdict(plan),
        "machine": dict(machine),
        "texts": [len(corpus) for corpus in text.seen],
        "judges": len(text.judges),
        "recipes": {
            name: {"about": variant.about, "k": variant.training.k, "keep": variant.keep, **asdict(results[name])}
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
