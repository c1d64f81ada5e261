"""One run: files, alternating rounds, report."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import GemmMeter, alternate, machine, measure_memory_rate
from benchmarks.peers.contender import EXTRAS
from benchmarks.peers.fleet import Fleet
from benchmarks.peers.plan import LORA_RANK, VOCABULARY, Plan, Workload
from benchmarks.peers.report import make_report
from benchmarks.peers.tenants import write_tenants
from hmi.bench import SHAPES
from hmi.devices import resolve_device, resolve_dtype

REFERENCE = "hmi_k0"
# Of a probability, after a dozen layers whose states were rounded to the dtype. Without its LoRA a row moves by 0.1 to
# 0.2, with another tenant's LoRA and head by more.
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.01}
_ONCE_IN_QUICK = ("gemm", "hmi_k0", "per_tenant", "adapters", "polylora")


class Disagreement(Exception):
    """Two engines gave different answers for the same rows."""


def drive(fleet: Fleet, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The report. `SystemExit` where HMI does not run or engines disagree: there is nothing to report then."""
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    plan = _plan(options, device, dtype)
    plan.write(folder)
    write_tenants(plan, folder)
    fleet.load()
    agreement = _warm(fleet, plan)
    gemm = GemmMeter(plan.shape, plan.sequences * plan.tokens, device, dtype)
    rates = _measure(fleet, plan, gemm, options)
    left_out = {each.name: "left out by --quick" for each in EXTRAS if options.quick}
    figures = make_report(plan, gemm.flops_per_second, rates, left_out | fleet.unavailable)
    report = _about(options, plan, device, fleet) | figures
    report["extras"] |= {
        "largest_difference": agreement.get("peft"),
        "differences": agreement,
        "memory_gb_s": round(measure_memory_rate(device) / 1e9, 1),
    }
    return report


def _plan(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> Plan:
    return Plan(
        shape=SHAPES[options.shape],
        tokens=options.tokens,
        sequences=options.sequences,
        tenants=min(options.tenants, options.sequences),
        k=options.k,
        in_flight=3 if options.quick else 8,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
    )


def _warm(fleet: Fleet, plan: Plan) -> dict[str, float]:
    """Run a batch everywhere, and see whether the answers are the same."""
    answers = {name: fleet.answers(name, Workload.TENANTS, 1) for name in fleet.names}
    for workload in (Workload.DISTINCT, Workload.NONE):
        fleet.answers("hmi_k6", workload, 1)
    same = {
        name: each
        for name, each in answers.items()
        if each is not None and not name.endswith(("_k6", "_upper", "full_model"))
    }
    try:
        return differences(same, plan.dtype)
    except Disagreement as error:
        raise SystemExit(str(error)) from error


def differences(answers: Mapping[str, NDArray[np.float32]], dtype: str) -> dict[str, float]:
    """Return by engine the largest difference of any probability `[rows, labels]` from `hmi_k0`'s.

    Raises `Disagreement` above the tolerance.
    """
    reference = answers[REFERENCE]
    found = {}
    for name, each in answers.items():
        if name == REFERENCE:
            continue
        if each.shape != reference.shape or not np.isfinite(each).all():
            raise Disagreement(f"{name} answers {each.shape}, some not finite; {REFERENCE} answers {reference.shape}")
        found[name] = round(float(np.abs(each - reference).max()), 5)
        if found[name] > TOLERANCES[dtype]:
            raise Disagreement(
                f"{name} and {REFERENCE} do not compute the same: probabilities of the same rows differ by up to "
                f"{found[name]}, more than {TOLERANCES[dtype]}, which {dtype} could explain"
            )
    return found


def _measure(fleet: Fleet, plan: Plan, gemm: GemmMeter, options: argparse.Namespace) -> dict[str, list[float]]:
    """Sequences per second of every round, by engine; the GEMM rate is measured in the same turns."""
    peer_batches = 1 if options.quick else 2
    runs: dict[str, Callable[[], float]] = {"gemm": gemm.measure}
    for name in fleet.names:
        batches = plan.in_flight if name.startswith("hmi_") else peer_batches
        runs[name] = partial(_rate, fleet, plan, name, Workload.TENANTS, batches)
    runs["hmi_distinct"] = partial(_rate, fleet, plan, "hmi_k6", Workload.DISTINCT, plan.in_flight)
    runs["hmi_none"] = partial(_rate, fleet, plan, "hmi_k6", Workload.NONE, plan.in_flight)
    often = {name: run for name, run in runs.items() if not (options.quick and name in _ONCE_IN_QUICK)}
    if not options.quick:
        alternate(runs, 1)  # not counted
    first, others = alternate(runs, 1), alternate(often, options.rounds - 1)
    return {
        name: [rate for rate in [*first[name], *others.get(name, [])] if not math.isnan(rate)]
        for name in runs
        if name != "gemm"
    }


def _rate(fleet: Fleet, plan: Plan, name: str, workload: Workload, batches: int) -> float:
    return batches * plan.sequences / fleet.seconds(name, workload, batches)


def _about(options: argparse.Namespace, plan: Plan, device: torch.device, fleet: Fleet) -> dict[str, Any]:
    return {
        "command": options.command,
        **machine(device),
        "device": plan.device,
        "dtype": plan.dtype,
        "shapes": {
            **{name: getattr(plan.shape, name) for name in plan.shape.__slots__},
            "vocabulary": VOCABULARY,
            "tokens": plan.tokens,
            "sequences": plan.sequences,
            "tenants": plan.tenants,
            "lora_rank": LORA_RANK,
            "k": plan.k,
        },
        "rounds": options.rounds,
        "versions": _versions(fleet.versions),
    }


def _versions(by_engine: Mapping[str, Mapping[str, str | None]]) -> dict[str, dict[str, str | None]]:
    """Of the packages, and by engine what differs where it has libraries of its own."""
    common = by_engine["hmi_k0"]
    found = {"common": dict(common)}
    for name, own in by_engine.items():
        differing = {package: version for package, version in own.items() if common[package] != version}
        if differing:
            found[name] = differing
    return found
