"""Turns, tables and the machine's own rates."""

from __future__ import annotations

import torch

from benchmarks.command import as_table
from benchmarks.harness import GemmMeter, alternate, versions
from hmi.bench import Shape


def test_every_turn_begins_with_another_run() -> None:
    order: list[str] = []

    def run(label: str) -> float:
        order.append(label)
        return float(len(order))

    found = alternate({label: lambda label=label: run(label) for label in "abc"}, 3)  # type: ignore[misc]
    assert "".join(order) == "abcbcacab"
    assert found == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_gemm_rate_is_a_rate_of_this_machine() -> None:
    meter = GemmMeter(Shape(64, 2, 2, 128), 32, torch.device("cpu"), torch.float32, square=64)
    seconds = meter.measure(repeats=1)
    assert seconds > 0
    assert meter.flops_per_second > 1e6


def test_table_has_a_dash_where_a_figure_is_missing() -> None:
    assert as_table(("engine", "seq/s"), [("one", 1.5), ("other", None)]).splitlines() == [
        "engine  seq/s",
        "one     1.500",
        "other       -",
    ]


def test_package_that_is_not_here_has_no_version() -> None:
    assert versions("torch", "no-such-package") == {"torch": torch.__version__, "no-such-package": None}
