"""hmi tune against an API that answers from memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from hmi.cli.client import HmiClient
from hmi.cli.commands import jobs, options
from hmi.cli.main import app
from hmi.schemas import EventObject, FileObject, JobObject
from tests.answers import filled_json

PROGRESS = {"done": 5, "steps": 10, "epoch": 1, "epochs": 2, "loss": 0.25, "seconds_left": 4.0}


def job(**fields: Any) -> dict[str, Any]:
    usual = {"id": "ftjob-1", "status": "queued", "model": "mini", "hmi": {"examples": 3}}
    return filled_json(JobObject, **(usual | fields))


JOB = job()


class Desk:
    """Answers requests, and keeps them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        is_json = request.headers.get("content-type") == "application/json"
        self.asked.append((request.method, request.url.path, json.loads(body) if is_json else body))
        if request.url.path == "/v1/files":
            return httpx.Response(200, json=filled_json(FileObject, id=f"file-{len(self.asked)}"))
        waiting = self.answers[request.method, request.url.path]
        return httpx.Response(200, json=waiting.pop(0) if len(waiting) > 1 else waiting[0])


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk()
    monkeypatch.setattr(
        jobs, "connect", lambda url, key: HmiClient("http://api", "key", transport=httpx.MockTransport(desk))
    )
    monkeypatch.setattr(options, "_POLL_SECONDS", 0)
    return desk


def run(*arguments: str, status: int = 0) -> Any:
    done = CliRunner().invoke(app, ["tune", *arguments])
    assert done.exit_code == status, (done.output, done.exception)
    return done


def test_request_holds_the_given_options_alone(desk: Desk, tmp_path: Path) -> None:
    text = tmp_path / "reviews.csv"
    text.write_text("text,label\na,b\n")
    desk.answers["POST", "/v1/fine_tuning/jobs"] = [JOB]
    run("create", str(text), "--model", "mini")
    assert desk.asked[1][2] == {"model": "mini", "training_file": "file-1"}
    assert b"fine-tune" in desk.asked[0][2]
    assert b'filename="reviews.csv"' in desk.asked[0][2]
    options = ("--suffix", "s", "--epochs", "2", "--rank", "4", "--kind", "lora", "--validation", str(text))
    run("create", str(text), "--model", "mini", *options, "--seed", "0")
    assert desk.asked[-1][2] == {
        "model": "mini",
        "suffix": "s",
        "seed": 0,
        "training_file": "file-3",
        "validation_file": "file-4",
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        "hmi": {"kind": "lora", "rank": 4},
    }


def test_a_job_is_followed_to_its_end(desk: Desk) -> None:
    ended = job(status="succeeded", fine_tuned_model="acme/s", hmi={"progress": PROGRESS | {"done": 10}})
    running = job(status="running", hmi={"progress": PROGRESS})
    desk.answers["GET", "/v1/fine_tuning/jobs/ftjob-1"] = [JOB, running, ended]
    done = run("watch", "ftjob-1")
    assert done.stdout == "ftjob-1 succeeded: acme/s\n"
    assert len(desk.asked) == 3


def test_a_job_that_failed_says_why_and_is_status_1(desk: Desk) -> None:
    error = {"code": "training_crashed", "message": "it failed", "param": None}
    failed = job(status="failed", error=error)
    desk.answers["GET", "/v1/fine_tuning/jobs/ftjob-1"] = [failed]
    assert "it failed (training_crashed)" in run("show", "ftjob-1", status=1).stderr
    assert json.loads(run("show", "ftjob-1", "--json", status=1).stdout)["error"] == error


def test_jobs_and_events_are_listed(desk: Desk) -> None:
    desk.answers["GET", "/v1/fine_tuning/jobs"] = [{"data": [job(hmi={"progress": PROGRESS})]}, {"data": []}]
    assert "50%" in run("list").stdout
    assert run("list").stdout == "no fine-tuning jobs\n"
    newest_first = [
        filled_json(EventObject, id="ftevent-2", created_at=2, level="warn", message="interrupted"),
        filled_json(EventObject, id="ftevent-1", created_at=1, level="info", message="made"),
    ]
    desk.answers["GET", "/v1/fine_tuning/jobs/ftjob-1/events"] = [{"data": newest_first}]
    first, second = run("events", "ftjob-1").stdout.splitlines()
    assert first.endswith("  made")
    assert second.endswith("  warn: interrupted")


def test_a_job_is_cancelled(desk: Desk) -> None:
    desk.answers["POST", "/v1/fine_tuning/jobs/ftjob-1/cancel"] = [job(status="cancelled")]
    assert run("cancel", "ftjob-1").stdout == "ftjob-1 cancelled\n"
