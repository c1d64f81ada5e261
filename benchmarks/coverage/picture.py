"""The curves as one SVG picture, a panel under another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from benchmarks.coverage.serving import BACKOFF, EXACT, EXACT_ALONE

__all__ = ["Panel", "draw", "panels_of"]

_COLOURS = ("#2f6fab", "#cf4a4a", "#2e7d4f", "#bf8700", "#8250df")
_WIDTH, _LEFT, _RIGHT, _HEIGHT, _TOP, _BOTTOM = 760, 64, 190, 300, 44, 44
_FONT = "ui-sans-serif, system-ui, Helvetica, Arial, sans-serif"
_STEPS = 4  # lines across a panel
_TICK = 68  # pixels that a number below a panel needs

Line = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """`lines` by label. A logarithmic axis takes no x of 0."""

    title: str
    across: str
    lines: Mapping[str, Line]
    logarithmic: bool = False


def panels_of(report: Mapping[str, Any]) -> list[Panel]:
    """What of a report can be drawn."""
    panels = []
    if "curve" in report:
        lines = {each["corpus"]: [(p["entries"], p["hit_rate"]) for p in each["points"]] for each in report["curve"]}
        panels.append(Panel("Share of new windows that the tree holds", "entries", lines, logarithmic=True))
        grown = {
            f"{growth['domain']} ({each['corpus']})": list(zip(growth["tokens"], growth["hit_rate"], strict=True))
            for each in report["curve"]
            for growth in (each["growth"][0], each["growth"][-1])
        }
        panels.append(Panel("... when every window counted is kept", "tokens counted", grown, logarithmic=True))
    if "drift" in report:
        periods = list(enumerate(report["drift"]["periods"], start=1))
        lines = {
            "drift half-way": [(number, each["hit_rate"]) for number, each in periods],
            "same text, no drift": [(number, each["hit_rate_without_drift"]) for number, each in periods],
        }
        panels.append(Panel("Hit rate, rebuilt after every period", "period", lines))
    for case in report.get("pays", ()):
        ways = {
            name: [(point["hit_rate"], point[name]["ratio"]) for point in case["points"]]
            for name in (EXACT, EXACT_ALONE, BACKOFF)
        }
        ways["k = 0"] = [(0.0, 1.0), (1.0, 1.0)]
        panels.append(Panel(f"Throughput over k = 0: {case['shape']}, k = {case['k']}", "hit rate", ways))
    return panels


def draw(panels: Sequence[Panel]) -> str:
    """SVG text, 760 pixels wide."""
    height = _HEIGHT * len(panels)
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="{_FONT}" '
        'font-size="12" role="img">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, panel in enumerate(panels):
        drawn += [f'<g transform="translate(0 {number * _HEIGHT})">', *_panel(panel), "</g>"]
    return "\n".join([*drawn, "</svg>", ""])


def _panel(panel: Panel) -> Iterator[str]:
    points = [point for line in panel.lines.values() for point in line]
    yield _text(20, 24, panel.title, weight=600)
    if not points:
        return
    scaled = [_scale(x, logarithmic=panel.logarithmic) for x, _ in points]
    low, high = min(scaled), max(scaled)
    top = max(y for _, y in points) or 1.0
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        share = (_scale(x, logarithmic=panel.logarithmic) - low) / (high - low or 1.0)
        return _LEFT + share * (right - _LEFT), bottom - y / top * (bottom - _TOP)

    for step in range(_STEPS + 1):
        value = top * step / _STEPS
        _, y = place(points[0][0], value)
        yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#d0d7de"/>'
        yield _text(_LEFT - 8, y + 4, f"{value:.2f}", "end")
    drawn_to = 0.0
    for x in sorted({x for x, _ in points}):
        across = place(x, 0)[0]
        if across >= drawn_to:
            yield _text(across, bottom + 16, f"{x:.3g}" if x < 1000 else f"{x:,.0f}", "middle")
            drawn_to = across + _TICK
    yield _text((_LEFT + right) / 2, bottom + 34, panel.across, "middle")
    for number, (label, line) in enumerate(panel.lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield f'<rect x="{right + 14}" y="{_TOP + 20 * number}" width="12" height="12" fill="{colour}"/>'
        yield _text(right + 32, _TOP + 20 * number + 10, label)


def _scale(x: float, *, logarithmic: bool) -> float:
    return math.log10(x) if logarithmic else x


def _text(x: float, y: float, words: str, anchor: str = "start", weight: int = 400) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="#1f2328">'
        f"{escape(words)}</text>"
    )
