"""Alternating stages give the answers of overlapping ones, and a trace shows what each of them did."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from hmi.engine import STAGES, Engine, EngineConfig, Overlap, Span, Tracer
from hmi.items import Item
from tests.engines import FolderSource, mixed_items, numbers

OFF = Overlap(tokenise=False, prefetch=False, fetch=False, finish=False)
TURNS = ("tokenise", "fetch", "device", "finish")


def _config(overlap: Overlap | None = None) -> EngineConfig:
    config = EngineConfig("cpu", "float32", threads=1, batch_tokens=256, batch_rows=8, device_adapter_bytes=120 * 1024)
    return dataclasses.replace(config, overlap=overlap) if overlap else config


def _items(base: str, count: int = 50) -> list[Item]:
    return mixed_items(base, count, seed=6)


def _run(source: FolderSource, items: list[Item], overlap: Overlap | None = None) -> tuple[list[np.ndarray], Tracer]:
    """Answers of two submissions on the same engine, which loads, evicts and loads again."""
    tracer = Tracer()
    with Engine(_config(overlap), source, tracer) as engine:
        futures = [engine.submit(items), engine.submit(items[::-1])]
        answers = [answer for future in futures for answer in numbers(future.result(60))]
    return answers, tracer


def _numbers(spans: list[Span], name: str) -> list[int]:
    """An argument of each span."""
    found = [span.args[name] for span in spans]
    assert all(isinstance(each, int) for each in found)
    return [each for each in found if isinstance(each, int)]


def test_all_stages_overlap_by_default() -> None:
    assert EngineConfig().overlap == Overlap(tokenise=True, prefetch=True, fetch=True, finish=True)


@pytest.mark.parametrize("base", ["k0", "k2"])
@pytest.mark.parametrize("stage", ["tokenise", "prefetch", "fetch", "finish", "all"])
def test_answers_are_the_same_when_a_stage_does_not_overlap(source: FolderSource, base: str, stage: str) -> None:
    items = _items(base)
    expected, _ = _run(source, items)
    found, _ = _run(source, items, OFF if stage == "all" else dataclasses.replace(Overlap(), **{stage: False}))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_no_two_stages_work_at_once_when_none_may_overlap(source: FolderSource) -> None:
    _, tracer = _run(source, _items("k2"), OFF)
    spans = tracer.spans(*TURNS)
    assert {span.name for span in spans} == set(TURNS)
    for one, other in itertools.pairwise(spans):
        assert one.end_ns <= other.begin_ns


def test_adapters_are_loaded_inside_the_fetch_when_nothing_is_prefetched(source: FolderSource) -> None:
    _, tracer = _run(source, _items("k0"), OFF)
    fetches, loads = tracer.spans("fetch"), tracer.spans("load-adapter")
    assert loads
    for load in loads:
        assert any(fetch.begin_ns <= load.begin_ns <= load.end_ns <= fetch.end_ns for fetch in fetches)
        assert load.thread == fetches[0].thread


@pytest.mark.parametrize("overlap", [None, OFF], ids=["overlapping", "taking turns"])
def test_a_trace_has_every_stage_of_every_batch(source: FolderSource, overlap: Overlap | None) -> None:
    items = _items("k2")
    tracer = Tracer()
    with Engine(_config(overlap), source, tracer) as engine:
        engine.submit(items).result(60)
    stats = engine.stats()
    assert {span.name for span in tracer.spans()} == set(STAGES)
    assert not [span for span in tracer.spans() if "error" in span.args]
    assert sum(_numbers(tracer.spans("tokenise"), "rows")) == len(items)
    by_stage = {stage: _numbers(tracer.spans(stage), "batch") for stage in ("fetch", "device", "finish")}
    for stage, batches in by_stage.items():
        assert batches == sorted(set(batches)), stage
    assert by_stage["fetch"][0] == 1
    assert by_stage["device"] == by_stage["finish"]
    assert set(by_stage["device"]) <= set(by_stage["fetch"])
    device = tracer.spans("device")
    assert len(device) == stats.batches > 5
    assert sum(_numbers(device, "rows")) == stats.sequences == len(items)
    assert sum(_numbers(device, "tokens")) == stats.tokens
    loaded = [str(span.args["adapter"]) for span in tracer.spans("load-adapter")]
    assert sorted(loaded) == sorted({f"k2/{item.model.adapter}" for item in items})


def test_each_stage_follows_the_one_before_it_when_batches_are_traced(source: FolderSource) -> None:
    _, tracer = _run(source, _items("k0"))
    ends = {
        stage: {span.args["batch"]: span for span in tracer.spans(stage)} for stage in ("fetch", "device", "finish")
    }
    for number, device in ends["device"].items():
        assert ends["fetch"][number].end_ns <= device.begin_ns
        assert device.end_ns <= ends["finish"][number].begin_ns


def test_busy_seconds_are_the_stages_and_nothing_is_kept_without_a_tracer(source: FolderSource) -> None:
    with Engine(_config(), source) as engine:
        engine.submit(_items("k0", 5)).result(60)
        assert engine._resources.counters.tracer.spans() == []
    assert set(engine.stats().busy_seconds) == set(TURNS)
