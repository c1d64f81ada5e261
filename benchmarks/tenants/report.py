"""What was measured, as plain values and as text."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

from benchmarks.command import as_table
from benchmarks.tenants.jobs import JobEngine


def case_report(engine: JobEngine, tenants: int, traffic: str, slots_share: float, *, ratio: float) -> dict[str, Any]:
    """The medians and percentiles of an engine's jobs, and how its tiers were used."""
    return {
        "tenants": tenants,
        "traffic": traffic,
        "slots_share": slots_share,
        "seq_s": round(statistics.median(engine.seq_s), 1),
        "ratio_vs_one_tenant": round(ratio, 3),
        "p50_ms": engine.latency_ms(50),
        "p95_ms": engine.latency_ms(95),
        "host": dataclasses.asdict(engine.host()),
        "on_device": dataclasses.asdict(engine.on_device()),
    }


def as_text(report: dict[str, Any]) -> str:
    """The same for people."""
    plain = [f"{key}: {value}" for key, value in report.items() if key != "cases"]
    header = ["tenants", "traffic", "slots", "seq/s", "ratio", "cold seq/s", "p50 ms", "p95 ms"]
    header += [f"{tier} {what}" for tier in ("device", "host") for what in ("hits", "MB", "of MB")]
    rows = [
        [
            case["tenants"],
            case["traffic"],
            case["slots_share"],
            case["seq_s"],
            case["ratio_vs_one_tenant"],
            case.get("cold_seq_s"),
            case["p50_ms"],
            case["p95_ms"],
            *_tier(case["on_device"]),
            *_tier(case["host"]),
        ]
        for case in report["cases"]
    ]
    return "\n".join([*plain, as_table(header, rows)])


def _tier(use: dict[str, Any]) -> list[object]:
    return [use["hit_rate"], round(use["resident_bytes"] / 1e6), round(use["budget_bytes"] / 1e6)]
