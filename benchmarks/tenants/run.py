"""The run and its report: for each number of tenants and each traffic, engines whose jobs alternate."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import as_table, report_progress
from benchmarks.harness import alternate, machine
from benchmarks.tenants.fleet import Fleet
from benchmarks.tenants.jobs import IN_FLIGHT, SUBMISSION, JobEngine
from benchmarks.tenants.plan import TenantsPlan, Traffic, draw_tenants
from benchmarks.tenants.registration import report_registrations

_WARM_SEQUENCES = 256


def run_plan(root: Path, plan: TenantsPlan) -> dict[str, Any]:
    """Everything; what it writes goes into `root`, an empty folder, except for what the plan keeps elsewhere."""
    report_progress("writing the base model, the tree and the adapters")
    fleet = Fleet(root, plan)
    cases: list[dict[str, Any]] = []
    with _OneTenant(fleet) as alone:
        for tenants, traffic in itertools.product(plan.tenants, Traffic):
            report_progress(f"{tenants} tenants, {traffic.value}")
            cases += _run_group(fleet, alone, tenants, traffic)
        one = _case_report(alone.engine, 1, "one", 1.0, ratio=1.0)
        kinds = {kind: round(statistics.median(rates), 1) for kind, rates in sorted(alone.by_kind.items())}
    registration = None
    if plan.registrations:
        report_progress(f"{plan.registrations} registrations")
        registration = report_registrations(root, plan.database, fleet.spec, plan.registrations)
    return {
        "shape": plan.shape,
        "layers": fleet.spec.layers,
        "k": plan.k,
        "sequences": plan.sequences,
        "submission": SUBMISSION,
        "in_flight": IN_FLIGHT,
        "rounds": plan.rounds,
        "device": str(fleet.device),
        "dtype": str(fleet.dtype).removeprefix("torch."),
        "machine": machine(fleet.device),
        "adapters": fleet.describe(),
        "one_tenant_seq_s": kinds,
        "cases": [one, *cases],
        "registration": registration,
        "registration_last_over_first": registration["last_over_first"] if registration else None,
    }


class _OneTenant:
    """Jobs for one tenant alone, whose kind of adapter changes from job to job."""

    def __init__(self, fleet: Fleet) -> None:
        self.by_kind: dict[str, list[float]] = defaultdict(list)
        self._fleet = fleet
        self._turns = itertools.cycle(fleet.single)
        self.engine = JobEngine(fleet.config(fleet.device_bytes(fleet.single)), fleet.source, fleet.texts)
        _warm(self.engine, fleet)

    def run(self) -> float:
        tenant = next(self._turns)
        rate = self.engine.run(np.full(len(self._fleet.texts), tenant))
        self.by_kind[self._fleet.kind(tenant)].append(rate)
        return rate

    def __enter__(self) -> _OneTenant:
        self.engine.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.engine.__exit__(*error)


def _run_group(fleet: Fleet, alone: _OneTenant, tenants: int, traffic: Traffic) -> list[dict[str, Any]]:
    """One case for each share of slots, all over the same draws."""
    drawn = draw_tenants(traffic, tenants, len(fleet.texts), seed=tenants)
    asked = np.unique(drawn).tolist()
    working_set = fleet.device_bytes(asked)
    cold: dict[float, float] = {}
    engines: dict[float, JobEngine] = {}
    with contextlib.ExitStack() as opened:
        for share in fleet.plan.slots_shares:
            config = fleet.config(int(share * working_set))
            engine = engines[share] = opened.enter_context(JobEngine(config, fleet.source, fleet.texts))
            _warm(engine, fleet)
            engine.drop(fleet.single)  # the tiers have room for the tenants in the traffic alone
            fleet.forget(asked)
            cold[share] = engine.run(drawn)
            engine.count_from_now()
        runs = {f"{share}": _Shuffled(engine, drawn) for share, engine in engines.items()}
        rates = alternate({"alone": alone.run, **runs}, fleet.plan.rounds)
        reference = statistics.median(rates["alone"])
        return [
            {
                **_case_report(
                    engine,
                    tenants,
                    traffic.value,
                    share,
                    ratio=statistics.median(engine.seq_s) / reference,
                ),
                "cold_seq_s": round(cold[share], 1),
                "tenants_in_traffic": len(asked),
                "working_set_bytes": working_set,
            }
            for share, engine in engines.items()
        ]


class _Shuffled:
    """Jobs for the same tenants, in another order each time: the same orders for each engine."""

    def __init__(self, engine: JobEngine, tenants: NDArray[np.int64]) -> None:
        self._engine = engine
        self._tenants = tenants
        self._rng = np.random.default_rng(0)

    def __call__(self) -> float:
        return self._engine.run(self._rng.permutation(self._tenants))


def _warm(engine: JobEngine, fleet: Fleet) -> None:
    """Run with tenants of no case: memory, threads and compiled code are there afterwards."""
    engine.run(np.resize(np.array(fleet.single), min(_WARM_SEQUENCES, len(fleet.texts))))
    engine.count_from_now()


def _case_report(engine: JobEngine, tenants: int, traffic: str, slots_share: float, *, ratio: float) -> dict[str, Any]:
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
    """Return the report as text."""
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
