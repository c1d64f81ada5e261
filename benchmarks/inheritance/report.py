"""The table over tolerances, and the default that follows from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from benchmarks.inheritance.choice import RULE, choose, lost
from benchmarks.inheritance.measure import Case, Measured
from benchmarks.inheritance.plan import UNLIMITED
from benchmarks.tables import as_table

__all__ = ["as_text", "make_report"]


def make_report(measured: Measured) -> dict[str, Any]:
    first = measured.cases[0]
    before = {domain: each.right for domain, each in first.answers.items()}
    losses = [lost(before, {domain: each.right for domain, each in case.answers.items()}) for case in measured.cases]
    without = {domain: each.right for domain, each in measured.without.items()}
    chosen = choose(
        [case.tolerance for case in measured.cases], losses, [_mean_changed(case, first) for case in measured.cases]
    )
    return {
        "device": measured.device,
        "dtype": measured.dtype,
        "rule": RULE,
        "default_tolerance": chosen,
        "without": {
            "accuracy": {domain: round(float(right.mean()), 4) for domain, right in without.items()},
            "lost": _rounded(dataclasses.asdict(lost(before, without))),
        },
        "tolerances": [
            {**_storage(case, first), "lost": _rounded(dataclasses.asdict(loss)), **_answers(case, first)}
            for case, loss in zip(measured.cases, losses, strict=True)
        ],
    }


def _storage(case: Case, first: Case) -> dict[str, Any]:
    return {
        "tolerance": case.tolerance,
        "entries": case.entries,
        "marks": case.marks,
        "mark_share": round(case.marks / (case.marks + case.entries), 4),
        "bytes": case.bytes,
        "saved": round(1 - case.bytes / first.bytes, 4),
        "hoisted_bytes": case.hoisted_bytes,
        "hoisted_saved": round(1 - case.hoisted_bytes / first.hoisted_bytes, 4),
        "error": round(case.error, 4),
    }


def _answers(case: Case, first: Case) -> dict[str, Any]:
    return {
        "changed": _rounded(_changed(case, first)),
        "accuracy": _rounded({domain: float(each.right.mean()) for domain, each in case.answers.items()}),
    }


def _changed(case: Case, first: Case) -> dict[str, float]:
    """By domain, the share of answers with another label than at tolerance 0."""
    return {
        domain: float(np.mean(each.labels != first.answers[domain].labels)) for domain, each in case.answers.items()
    }


def _mean_changed(case: Case, first: Case) -> float:
    shares = _changed(case, first)
    return sum(shares.values()) / len(shares)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def as_text(report: dict[str, Any]) -> str:
    domains = list(report["without"]["accuracy"])
    header = ("tolerance", "marks", "MB", "saved", "hoisted MB", "saved", "row error", "changed", "lost", *domains)
    rows: list[tuple[object, ...]] = [
        (
            "no limit" if case["tolerance"] >= UNLIMITED else f"{case['tolerance']:g}",
            f"{case['mark_share']:.1%}",
            f"{case['bytes'] / 1e6:.1f}",
            f"{case['saved']:.1%}",
            f"{case['hoisted_bytes'] / 1e6:.1f}",
            f"{case['hoisted_saved']:.1%}",
            case["error"],
            f"{sum(case['changed'].values()) / len(domains):.2%}",
            _points(case["lost"]),
            *(f"{case['accuracy'][domain]:.2%}" for domain in domains),
        )
        for case in report["tolerances"]
    ]
    without = report["without"]
    accuracies = (f"{without['accuracy'][domain]:.2%}" for domain in domains)
    rows.append(("no deltas", *([None] * 7), _points(without["lost"]), *accuracies))
    lines = [f"{name}: {value}" for name, value in report.items() if name not in {"tolerances", "without", "plan"}]
    return "\n".join([as_table(header, rows), "", "lost: points of accuracy, 95 % interval", *lines])


def _points(loss: dict[str, float]) -> str:
    return f"{loss['mean'] * 100:+.2f} ({loss['low'] * 100:+.2f} to {loss['high'] * 100:+.2f})"
