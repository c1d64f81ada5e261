"""A job's trace as a picture: a lane for each thread, time from left to right, in SVG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from hmi.bench.job import JobRun
from hmi.engine import STAGES, Span, length, union

__all__ = ["timeline"]

_COLOURS = dict(zip(STAGES, ("#8250df", "#bf8700", "#2f6fab", "#2e7d4f", "#cf4a4a"), strict=True))
_OTHER = "#57606a"
_WIDTH, _LEFT, _RIGHT, _TOP, _LANE, _BAR = 960, 150, 64, 58, 34, 22
_TICKS = 8
_GAP = 0.5  # between spans that follow each other
_FONT = "ui-sans-serif, system-ui, Helvetica, Arial, sans-serif"


def timeline(run: JobRun) -> str:
    """The whole job as SVG text, 960 pixels wide.

    Spans are coloured by stage, and a lane says for which share of the job its thread worked.
    """
    lanes = _lanes(run.spans)
    bottom = _TOP + _LANE * len(lanes)
    scale = (_WIDTH - _LEFT - _RIGHT) / (run.seconds * 1e9)
    title = f"{run.items:,} texts of many tenants in {run.seconds:.2f} s on {run.device} in {run.dtype}"
    shares = (
        f"device stage busy {run.device_busy_share:.1%} of the time from its first to its last batch, "
        f"{run.fetch_hidden_share:.1%} of the time spent fetching hidden under it"
    )
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 62}" font-family="{_FONT}" '
        'font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        _style(),
        f'<rect width="{_WIDTH}" height="{bottom + 62}" fill="#ffffff"/>',
        f'<text x="20" y="26" font-size="14" font-weight="600" fill="#1f2328">{escape(title)}</text>',
        f'<text x="20" y="44" fill="#57606a">{escape(shares)}</text>',
        *_axis(run.seconds, bottom),
    ]
    for number, (thread, spans) in enumerate(lanes.items()):
        top = _TOP + _LANE * number + (_LANE - _BAR) // 2
        busy = length(union((span.begin_ns, span.end_ns) for span in spans)) / (run.seconds * 1e9)
        drawn.append(_text(_LEFT - 10, top + 15, thread.removeprefix("hmi-"), "end"))
        drawn.append(_text(_WIDTH - _RIGHT + 10, top + 15, f"{busy:.0%}"))
        drawn += _bars(spans, top, run.begin_ns, scale)
    drawn += _legend([stage for stage in STAGES if any(span.name == stage for span in run.spans)], bottom + 48)
    return "\n".join([*drawn, "</svg>", ""])


def _style() -> str:
    rules = [f".span {{ fill: {_OTHER} }}", *(f".{stage} {{ fill: {colour} }}" for stage, colour in _COLOURS.items())]
    return f"<style>{' '.join(rules)}</style>"


def _lanes(spans: Iterable[Span]) -> dict[str, list[Span]]:
    """Spans by thread, threads in the pipeline's order."""
    lanes: dict[str, list[Span]] = {}
    for span in spans:
        lanes.setdefault(span.thread, []).append(span)
    return dict(sorted(lanes.items(), key=lambda lane: (min(map(_place, lane[1])), lane[0])))


def _place(span: Span) -> int:
    return STAGES.index(span.name) if span.name in STAGES else len(STAGES)


def _bars(spans: Iterable[Span], top: int, origin_ns: int, scale: float) -> Iterator[str]:
    """A span that lies in another one of its thread is drawn in it, lower."""
    open_until: list[int] = []
    for span in spans:
        open_until = [end for end in open_until if end > span.begin_ns]
        inset = min(4 * len(open_until), _BAR // 2 - 2)
        open_until.append(span.end_ns)
        x, width = _LEFT + (span.begin_ns - origin_ns) * scale, (span.end_ns - span.begin_ns) * scale
        width = width - _GAP if width > 4 * _GAP else max(width, _GAP)
        yield (
            f'<rect class="span {escape(span.name)}" x="{x:.2f}" y="{top + inset}" width="{width:.2f}" '
            f'height="{_BAR - 2 * inset}"/>'
        )


def _axis(seconds: float, bottom: int) -> Iterator[str]:
    step = _round_step(seconds / _TICKS)
    for number in range(int(seconds / step) + 1):
        x = _LEFT + number * step / seconds * (_WIDTH - _LEFT - _RIGHT)
        yield f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}" stroke="#d0d7de"/>'
        yield _text(x, bottom + 16, f"{number * step:g} s", "middle")


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, ... (and their tenths) that is not below `least`."""
    size = 1e-6
    while True:
        for factor in (1, 2, 5):
            if size * factor >= least:
                return round(size * factor, 6)
        size *= 10


def _legend(stages: Iterable[str], y: int) -> Iterator[str]:
    x = _LEFT
    for stage in stages:
        yield f'<rect class="{stage}" x="{x}" y="{y - 10}" width="12" height="12"/>'
        yield _text(x + 18, y, stage)
        x += 48 + 7 * len(stage)


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" fill="#1f2328">{escape(words)}</text>'
