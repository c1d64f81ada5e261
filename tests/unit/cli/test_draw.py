from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from hmi.cli.render import basics as draw
from hmi.schemas import BatchObject, NodeObject, RequestCounts
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
    text = _drawn(draw.residency([_node({"host": tier, "on_device": tier, "device": "cpu"})]))
    assert text.count("24.0 MB of 2.0 GB") == 2
    assert "75.0 %" in text
    assert "host memory" in text
    assert "device memory" in text


def test_node_is_listed_when_it_has_no_figures_yet() -> None:
    assert "hmi-cpu@host" in _drawn(draw.workload([_node({})]))
    assert "hmi-cpu@host" not in _drawn(draw.residency([_node({})]))


def test_markup_in_names_is_text_when_drawn() -> None:
    assert "[red]x[/red]" in _drawn(draw.table(("name",), [("[red]x[/red]",)]))


def test_hit_rate_is_a_dash_when_nothing_was_looked_up() -> None:
    assert draw.hit_rate(0, 0) == "-"


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        ({}, "none"),
        ({"kind": "lora", "rank": 8, "labels": ["neg", "pos"]}, "lora 8: neg, pos"),
        ({"kind": "bottleneck", "rank": 48, "labels": None}, "bottleneck 48"),
    ],
)
def test_adapter_is_named_in_one_cell_when_listed(summary: dict[str, object], words: str) -> None:
    assert draw.adapter_words(summary) == words


def test_progress_shows_lines_and_failures_when_a_batch_goes_on() -> None:
    out = io.StringIO()
    with draw.BatchProgress(console=Console(file=out, width=100, force_terminal=True)) as progress:
        counts = RequestCounts(total=10, completed=6, failed=1)
        progress.update_from(filled(BatchObject, id="batch_1", status="in_progress", request_counts=counts))
    assert "in progress" in out.getvalue()
    assert "7/10" in out.getvalue()
    assert "1 failed" in out.getvalue()
