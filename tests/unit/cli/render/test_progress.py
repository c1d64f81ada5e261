"""Progress is a bar on a terminal, and lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hmi.cli.render import ProgressBar
from hmi.cli.render.progress import build_words, duration
from hmi.schemas import BatchObject, JobObject, RequestCounts, TreeProgress
from tests.answers import filled
from tests.waiting import wait_until


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def terminal(out: io.StringIO) -> Console:
    return Console(file=out, width=100, force_terminal=True)


@pytest.fixture
def pipe(out: io.StringIO) -> Console:
    return Console(file=out, width=30)


def test_bar_shows_lines_and_failures_while_a_batch_runs(terminal: Console, out: io.StringIO) -> None:
    counts = RequestCounts(total=10, completed=6, failed=1)
    with ProgressBar("batch", "lines", terminal) as bar:
        bar.show_batch(filled(BatchObject, id="batch_1", status="in_progress", request_counts=counts))
    assert "in progress, 7 of 10 lines, 1 failed" in out.getvalue()


def test_bar_follows_the_stages_of_a_build(terminal: Console, out: io.StringIO) -> None:
    with ProgressBar("tree", "rows", terminal) as bar:
        bar.show_build(None)
        bar.show_build(TreeProgress(stage="compute", done=10, total=1000))
        bar._progress.refresh()
        bar.show_build(TreeProgress(stage="write", done=5, total=2000))
    assert "computing new rows, 10 of 1,000 rows" in out.getvalue()
    assert "writing tables, 5 of 2,000 rows" in out.getvalue()


def test_lines_are_printed_where_there_is_no_terminal(pipe: Console, out: io.StringIO) -> None:
    details = {"progress": {"done": 5, "steps": 10, "epoch": 1, "epochs": 2, "loss": 0.25, "seconds_left": 4.0}}
    with ProgressBar("fine-tuning", "steps", pipe, line_seconds=0) as bar:
        bar.show_tuning(filled(JobObject, id="ftjob-1", status="queued"))
        bar.show_tuning(filled(JobObject, id="ftjob-1", status="running", hmi=details))
        bar.show(10, 10)
    assert out.getvalue().splitlines() == [
        "fine-tuning: 0 s so far, queued",
        "fine-tuning: 50 %, running, 5 of 10 steps, epoch 1 of 2, loss 0.250, 4 s left",
        "fine-tuning: 100 %, 10 of 10 steps",
    ]


def test_lines_appear_while_the_job_reports_nothing(pipe: Console, out: io.StringIO) -> None:
    with ProgressBar("converting", console=pipe, line_seconds=0.1):
        wait_until(out.getvalue, what="the first line")
    assert out.getvalue().startswith("converting: 1 s so far")


def test_lines_keep_a_pause_of_seconds(pipe: Console, out: io.StringIO) -> None:
    with ProgressBar("training", console=pipe) as bar:
        for done in range(100):
            bar.show(done, 100)
    assert out.getvalue() == ""


def test_build_has_just_begun_until_it_reports() -> None:
    assert build_words(None) == "just begun"
    assert build_words(TreeProgress(stage="polish")) == "polish"


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (119, "119 s"), (600, "10 min")])
def test_durations_are_in_seconds_or_minutes(seconds: float, words: str) -> None:
    assert duration(seconds) == words
