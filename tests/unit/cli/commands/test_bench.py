from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hmi.cli.main import app

SMALL = ["--shape", "tiny", "--items", "40", "--tenants", "5", "--device", "cpu", "--dtype", "float32"]


def test_trace_is_written_and_summarised_when_a_job_is_traced(tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    arguments = ["bench", "trace", "--output", str(output), *SMALL]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    events = json.loads(output.read_text())["traceEvents"]
    assert {"device", "fetch", "load-adapter"} <= {event["name"] for event in events}
    for words in ("40 texts", "5 tenants", "device stage busy", "fetching hidden", "ui.perfetto.dev", str(output)):
        assert words in result.output


def test_figures_are_json_when_asked_for(tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    result = CliRunner().invoke(app, ["bench", "trace", "-o", str(output), "--json", *SMALL], catch_exceptions=False)
    figures = json.loads(result.stdout)
    assert figures["items"] == 40
    assert figures["trace"] == str(output)
    assert 0 < figures["device_busy_share"] <= 1
    assert 0 <= figures["fetch_hidden_share"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "no-such-folder/trace.json"], "no-such-folder"),
        (["--output", "."], "folder"),
        (["--items", "3", "--tenants", "5"], "tenant"),
        (["--device", "abacus"], "abacus"),
        (["--k", "4"], "k must"),
    ],
)
def test_mistake_is_one_line_and_status_1_when_the_job_cannot_be_run(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["bench", "trace", *SMALL, *arguments])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []
