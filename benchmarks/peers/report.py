"""From rounds to figures: rates, shares of the GEMM rate, ratios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.command import as_table
from benchmarks.flops import forward_flops
from benchmarks.peers.plan import LABELS, LORA_RANK, Plan

ENGINES = ("hmi_k0", "hmi_k6", "full_model", "per_tenant", "peft", "adapters", "polylora")
_TUNED = "tuned_"


def flops_of(name: str, plan: Plan) -> int:
    """What the engine computes for one sequence."""
    layers = plan.shape.num_hidden_layers
    name = name.removeprefix(_TUNED)
    if name == "full_model":
        return forward_flops(plan.shape, plan.tokens)
    upper = layers - plan.k
    return forward_flops(
        plan.shape,
        plan.tokens,
        layers=upper if name == "hmi_k6" else layers,
        lora_rank=LORA_RANK,
        lora_layers=upper if name == "peft_upper" else None,
        labels=LABELS,
        first_only=name.startswith("hmi_"),
    )


def make_report(
    plan: Plan, gemm_flops: float, rates: Mapping[str, Sequence[float]], unavailable: Mapping[str, str]
) -> dict[str, Any]:
    """The figures as the report's keys. A figure that was not measured is None, its reason beside it.

    `rates` are sequences per second of every round, by engine; `hmi_distinct` and `hmi_none` are `hmi_k6` with as many
    tenants as rows, and with none.
    """
    medians = {name: statistics.median(each) for name, each in rates.items() if each}

    def figure(name: str) -> dict[str, Any]:
        rate = medians.get(name)
        share = None if rate is None else rate * flops_of(name, plan) / gemm_flops
        found: dict[str, Any] = {"seq_s": _rounded(rate, 2), "fraction_of_gemm": _rounded(share, 4)}
        return found | ({"unavailable": unavailable[name]} if name in unavailable else {})

    def ratio(name: str, other: str) -> float | None:
        if name not in medians or other not in medians:
            return None
        return _rounded(medians[name] / medians[other], 3)

    def compared(name: str) -> dict[str, Any]:
        return figure(name) | {"ratio": ratio("hmi_k6", name)}

    return {
        "gemm_tflops": round(gemm_flops / 1e12, 3),
        "engines": {name: figure(name) for name in ENGINES},
        "ratio_vs_peft": ratio("hmi_k6", "peft"),
        "ratio_vs_full_model": ratio("hmi_k6", "full_model"),
        "distinct_tenants_over_none": ratio("hmi_distinct", "hmi_none"),
        "extras": {
            "ratio_k0_vs_peft": ratio("hmi_k0", "peft"),
            "peft_upper": compared("peft_upper"),
            "tuned": {name: compared(_TUNED + name) for name in ("full_model", "peft")},
            "seq_s_of_rounds": {name: [round(rate, 2) for rate in each] for name, each in rates.items()},
        },
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def as_text(report: Mapping[str, Any]) -> str:
    """The report for a person."""
    extras = report["extras"]
    figures = {
        **report["engines"],
        "peft_upper": extras["peft_upper"],
        **{f"{name} (tuned)": figure for name, figure in extras["tuned"].items()},
    }
    base = report["engines"]["hmi_k6"]["seq_s"]
    rows = [
        (name, each["seq_s"], each["fraction_of_gemm"], base / each["seq_s"] if each["seq_s"] else None)
        for name, each in figures.items()
    ]
    missing = {name: each for name, each in figures.items() if "unavailable" in each}
    lines = [f"{key}: {value}" for key, value in report.items() if key not in ("engines", "extras")]
    lines += [f"{key}: {extras[key]}" for key in ("ratio_k0_vs_peft", "largest_difference", "differences")]
    lines += ["", as_table(("engine", "seq/s", "of GEMM", "hmi_k6 is x"), rows)]
    lines += [f"{name}: unavailable, {each['unavailable']}" for name, each in missing.items()]
    return "\n".join(lines)
