"""The batch of the demonstration: its lines, its answers, and the comparison of two runs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx2
import pytest
from openai import OpenAI
from rich.console import Console

from examples.data import Sentence
from examples.demo.batches import Answered, BatchRun, compare, line_id, run_batch, write_batch
from examples.demo.steps import Steps
from examples.demo.tenants import DemoTenant, Portion
from hmi.errors import HmiError
from hmi.schemas import BatchObject
from tests.answers import filled_json

ONE, TWO = DemoTenant("one", "movies", "lora", 4), DemoTenant("two", "news", "lora", 4)
DEALT = {
    "one": Portion((), (Sentence("a", "positive"), Sentence("é\u2028", "negative"))),
    "two": Portion((), (Sentence("c", "positive"),)),
}


def run_of(**probs: tuple[float, float]) -> BatchRun:
    answered = {line: Answered("no" if pair[0] > pair[1] else "yes", pair, 5) for line, pair in probs.items()}
    return BatchRun("batch_1", 1.0, answered)


def test_tenants_take_turns_when_a_batch_is_written(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    assert write_batch(path, (ONE, TWO), DEALT) == 3
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert [line["custom_id"] for line in lines] == [line_id(ONE, 0), line_id(TWO, 0), line_id(ONE, 1)]
    assert lines[2]["body"] == {"model": "one/sentiment", "input": "é\u2028"}


def test_runs_are_equal_when_they_differ_by_rounding() -> None:
    found = compare(run_of(a=(0.9, 0.1), b=(0.501, 0.499)), run_of(a=(0.91, 0.09), b=(0.499, 0.501)))
    assert (found.lines, found.other_labels, found.beyond_rounding) == (2, 1, 0)
    assert found.largest_difference == pytest.approx(0.01)


def test_difference_is_counted_when_it_is_more_than_rounding() -> None:
    assert compare(run_of(a=(0.9, 0.1)), run_of(a=(0.4, 0.6))).beyond_rounding == 1


def test_runs_are_not_compared_when_they_answered_other_lines() -> None:
    with pytest.raises(HmiError, match="did not answer the same lines"):
        compare(run_of(a=(0.9, 0.1)), run_of(b=(0.9, 0.1)))


def api(batch: Mapping[str, object], **files: str) -> OpenAI:
    """A client of an API that has one batch, over after the first look at it, and these files."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if path.endswith("/content"):
            return httpx2.Response(200, text=files[path.split("/")[-2]])
        if path == "/v1/files":
            return httpx2.Response(200, json={"id": "file-in", "object": "file"})
        return httpx2.Response(200, json=filled_json(BatchObject, id="batch_1", **{"status": "in_progress", **batch}))

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return OpenAI(base_url="http://api.test/v1", api_key="key", http_client=http)


def steps(check: Callable[[], None] = lambda: None) -> Steps:
    made = Steps(Console(file=io.StringIO()))
    made.check = check
    return made


def written(tmp_path: Path) -> Path:
    path = tmp_path / "batch.jsonl"
    write_batch(path, (ONE, TWO), DEALT)
    return path


def test_answers_are_read_when_a_batch_completes(tmp_path: Path) -> None:
    body = {"data": [{"label": "no", "probs": [0.75, 0.25]}], "usage": {"total_tokens": 7}}
    output = json.dumps({"custom_id": "one-0", "response": {"body": body}, "error": None}) + "\n"
    counts = {"total": 1, "completed": 1, "failed": 0}
    client = api({"status": "completed", "output_file_id": "out", "request_counts": counts}, out=output)
    run = run_batch(client, written(tmp_path), steps())
    assert run.answers == {"one-0": Answered("no", (0.75, 0.25), 7)}


def test_first_failed_line_is_named_when_not_every_line_was_answered(tmp_path: Path) -> None:
    error = {"message": "no such model", "code": "model_not_found"}
    line = json.dumps({"custom_id": "two-0", "response": {"body": {"error": error}}, "error": None}) + "\n"
    counts = {"total": 3, "completed": 2, "failed": 1}
    ended = {"status": "completed", "output_file_id": "out", "error_file_id": "bad", "request_counts": counts}
    with pytest.raises(HmiError, match=r"2 of 3 lines were answered; line two-0: no such model"):
        run_batch(api(ended, bad=line), written(tmp_path), steps())


def test_reason_is_named_when_the_batch_is_refused(tmp_path: Path) -> None:
    errors = {
        "object": "list",
        "data": [{"code": "empty_file", "message": "the file is empty", "line": None, "param": None}],
    }
    with pytest.raises(HmiError, match="ended as failed; 0 of 0 lines were answered; the file is empty"):
        run_batch(api({"status": "failed", "errors": errors}), written(tmp_path), steps())


def test_waiting_ends_when_a_service_dies(tmp_path: Path) -> None:
    def died() -> None:
        raise HmiError("worker died", code="service_died")

    with pytest.raises(HmiError, match="worker died"):
        run_batch(api({}), written(tmp_path), steps(died))
