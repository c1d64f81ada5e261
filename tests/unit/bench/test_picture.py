from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

from hmi.bench import JobRun, timeline
from hmi.engine import Span

_SVG = "{http://www.w3.org/2000/svg}"


def _drawn(run: JobRun) -> ElementTree.Element:
    return ElementTree.fromstring(timeline(run))  # noqa: S314 - made here


def _bars(run: JobRun) -> list[dict[str, str]]:
    return [each.attrib for each in _drawn(run).iter(f"{_SVG}rect") if each.get("class", "").startswith("span")]


def test_every_span_is_a_bar_within_the_picture(run: JobRun) -> None:
    bars = _bars(run)
    assert len(bars) == len(run.spans)
    assert all(float(bar["x"]) >= 150 and float(bar["x"]) + float(bar["width"]) <= 960 for bar in bars)


def test_threads_stand_in_the_order_of_the_pipeline_with_their_share(run: JobRun) -> None:
    second = 10**9
    spans = (
        Span("finish", "hmi-finish", 3 * second, 4 * second, {}),
        Span("device", "hmi-device", 1 * second, 3 * second, {}),
        Span("fetch", "hmi-fetch", 0, second, {}),
        Span("load-adapter", "hmi-fetch", second // 2, second, {}),
    )
    shown = dataclasses.replace(run, seconds=4.0, begin_ns=0, spans=spans)
    words = [each.text for each in _drawn(shown).iter(f"{_SVG}text")]
    assert [word for word in words if word in {"fetch", "device", "finish"}][:3] == ["fetch", "device", "finish"]
    assert {"25%", "50%"} <= set(words)
    heights = {(bar["class"], int(bar["height"])) for bar in _bars(shown)}
    assert heights == {("span finish", 22), ("span device", 22), ("span fetch", 22), ("span load-adapter", 14)}
