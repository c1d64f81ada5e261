from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from hmi.cli.render import adapter_words, fidelity_table, hit_rate, residency, table, workload
from hmi.schemas import NodeObject
from hmi.training.distill import Fidelity
from tests.answers import filled


def _drawn(what: RenderableType, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().splitlines())


def _node(stats: dict[str, object]) -> NodeObject:
    return filled(NodeObject, name="hmi-cpu@host", device="cpu", pid=7, seen_at=0, stats=stats)


def test_residency_has_a_row_for_each_tier_when_a_node_reports_them() -> None:
    tier = {"entries": 12, "bytes": 24_000_000, "budget_bytes": 2_000_000_000, "hits": 3, "misses": 1, "evictions": 2}
    text = _drawn(residency([_node({"host": tier, "on_device": tier, "device": "cpu"})]))
    assert text.count("24.0 MB of 2.0 GB") == 2
    assert "75.0 %" in text
    assert "host memory" in text
    assert "device memory" in text


def test_node_is_listed_when_it_has_no_figures_yet() -> None:
    assert "hmi-cpu@host" in _drawn(workload([_node({})]))
    assert "hmi-cpu@host" not in _drawn(residency([_node({})]))


def test_markup_in_names_is_text_when_drawn() -> None:
    assert "[red]x[/red]" in _drawn(table(("name",), [("[red]x[/red]",)]))


def test_hit_rate_is_a_dash_when_nothing_was_looked_up() -> None:
    assert hit_rate(0, 0) == "-"


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        ({}, "none"),
        ({"kind": "lora", "rank": 8, "labels": ["neg", "pos"]}, "lora 8: neg, pos"),
        ({"kind": "bottleneck", "rank": 48, "labels": None}, "bottleneck 48"),
    ],
)
def test_adapter_is_named_in_one_cell_when_listed(summary: dict[str, object], words: str) -> None:
    assert adapter_words(summary) == words


def test_errors_of_a_base_are_listed_by_layer_and_stage() -> None:
    stages = [Fidelity((0.5, error), error / 2) for error in (0.9, 0.4, 0.25)]
    heading, _, *lines = [line.split() for line in _drawn(fidelity_table(2, *stages)).strip().splitlines()]
    assert heading[-3:] == ["converted", "fitted", "distilled"]
    assert lines[1:] == [
        ["layer", "3", "0.900", "0.400", "0.250"],
        ["text's", "mean", "0.450", "0.200", "0.125"],
    ]
