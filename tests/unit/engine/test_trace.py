"""What is recorded, and that it is what Chrome's trace format asks for."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from hmi.engine import STAGES, Tracer
from hmi.engine.trace import NO_TRACE


def _in_thread(name: str, tracer: Tracer, *spans: str) -> None:
    def work() -> None:
        for span in spans:
            with tracer.span(span):
                pass

    thread = threading.Thread(target=work, name=name)
    thread.start()
    thread.join()


def _events(tracer: Tracer, kind: str) -> list[dict[str, Any]]:
    return [event for event in tracer.to_chrome()["traceEvents"] if event["ph"] == kind]


def test_span_holds_thread_times_and_arguments_when_its_block_ends() -> None:
    tracer = Tracer()
    with tracer.span("fetch", batch=7, rows=64):
        assert tracer.spans() == []
    (found,) = tracer.spans()
    assert (found.name, found.thread) == ("fetch", threading.current_thread().name)
    assert found.begin_ns <= found.end_ns
    assert found.args == {"batch": 7, "rows": 64}


def test_span_is_recorded_with_its_error_when_the_block_raises() -> None:
    tracer = Tracer()
    with pytest.raises(KeyError), tracer.span("device", batch=1):
        raise KeyError("x")
    (found,) = tracer.spans()
    assert found.args == {"batch": 1, "error": "KeyError"}


def test_spans_come_by_name_and_begin_when_asked_for() -> None:
    tracer = Tracer()
    tracer.record("device", 20, 30)
    tracer.record("fetch", 5, 9)
    tracer.record("device", 10, 15)
    assert [span.begin_ns for span in tracer.spans("device")] == [10, 20]
    assert [span.begin_ns for span in tracer.spans()] == [5, 10, 20]


def test_arguments_may_have_any_name() -> None:
    tracer = Tracer()
    with tracer.span("fetch", name="acme", begin_ns=1, self=2):
        pass
    assert tracer.spans()[0].args == {"name": "acme", "begin_ns": 1, "self": 2}


def test_no_span_is_lost_when_many_threads_record() -> None:
    tracer = Tracer()

    def work(number: int) -> None:
        for turn in range(200):
            with tracer.span("fetch", thread=number, turn=turn):
                tracer.count("queue", batches=turn)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorded = {(span.args["thread"], span.args["turn"]) for span in tracer.spans()}
    assert recorded == {(number, turn) for number in range(8) for turn in range(200)}
    assert len(_events(tracer, "C")) == 8 * 200


def test_the_beginning_is_kept_and_the_rest_counted_when_the_limit_is_reached() -> None:
    tracer = Tracer(limit=3)
    for number in range(4):
        tracer.record("fetch", number, number + 1)
    tracer.count("queue", batches=1)
    assert [span.begin_ns for span in tracer.spans()] == [0, 1, 2]
    assert tracer.dropped == 2
    assert tracer.to_chrome()["otherData"] == {"dropped_events": 2}


def test_complete_event_is_in_microseconds_from_the_start() -> None:
    tracer = Tracer()
    origin = tracer._origin_ns
    tracer.record("fetch", origin + 1_500, origin + 4_000, batch=3)
    (event,) = _events(tracer, "X")
    assert (event["ts"], event["dur"]) == (1.5, 2.5)
    assert (event["name"], event["pid"], event["args"]) == ("fetch", os.getpid(), {"batch": 3})


def test_counter_event_holds_one_number_for_each_series() -> None:
    tracer = Tracer()
    tracer.count("queued batches", fetched=2, computed=0)
    (event,) = _events(tracer, "C")
    assert (event["name"], event["args"]) == ("queued batches", {"fetched": 2, "computed": 0})
    assert event["ts"] >= 0


def test_threads_are_named_in_pipeline_order_whichever_recorded_first() -> None:
    tracer = Tracer()
    _in_thread("watching", tracer, "something-else")
    for number, stage in enumerate(reversed(STAGES)):
        _in_thread(f"thread-{number}", tracer, stage)
    names = {event["tid"]: event["args"]["name"] for event in _events(tracer, "M") if event["name"] == "thread_name"}
    assert names == {1: "thread-4", 2: "thread-3", 3: "thread-2", 4: "thread-1", 5: "thread-0", 6: "watching"}
    order = [event for event in _events(tracer, "M") if event["name"] == "thread_sort_index"]
    assert all(event["args"]["sort_index"] == event["tid"] for event in order)
    assert {event["name"]: event["tid"] for event in _events(tracer, "X")} == {
        **{stage: place for place, stage in enumerate(STAGES, start=1)},
        "something-else": 6,
    }


def test_thread_of_several_stages_stands_at_its_first() -> None:
    tracer = Tracer()
    _in_thread("fetching", tracer, "fetch")
    _in_thread("all-in-one", tracer, "finish", "tokenise")
    assert {event["name"]: event["tid"] for event in _events(tracer, "X")} == {"tokenise": 1, "finish": 1, "fetch": 2}


def test_every_event_has_what_perfetto_asks_for_when_written(tmp_path: Path) -> None:
    tracer = Tracer()
    with tracer.span("fetch", adapter=Path("a")):  # no JSON value of its own
        tracer.count("queue", batches=1)
    tracer.write(tmp_path / "trace.json")
    written = json.loads((tmp_path / "trace.json").read_text())
    assert written["traceEvents"]
    for event in written["traceEvents"]:
        assert event["ph"] in "XMC"
        assert isinstance(event["ts"], int | float)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["args"], dict)
        assert ("dur" in event) == (event["ph"] == "X")
    assert {event["name"] for event in written["traceEvents"] if event["ph"] == "M"} == {
        "process_name",
        "thread_name",
        "thread_sort_index",
    }


def test_nothing_is_kept_without_a_tracer() -> None:
    with NO_TRACE.span("fetch", batch=1):
        pass
    NO_TRACE.count("queue", batches=1)
    NO_TRACE.record("fetch", 0, 1)
    assert NO_TRACE.spans() == []
    assert NO_TRACE.dropped == 0


def test_an_error_passes_without_a_tracer() -> None:
    with pytest.raises(KeyError), NO_TRACE.span("fetch"):
        raise KeyError("x")
