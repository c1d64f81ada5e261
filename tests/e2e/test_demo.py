"""`hmi demo --quick` as a newcomer runs it: real processes, the real model, real text."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.running import HMI
from tests.waiting import is_running, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("HMI_")}


def _demo(folder: Path) -> tuple[dict[str, Any], str]:
    """The figures of a run that ended with status 0, and what it printed on the way."""
    done = subprocess.run(
        [*HMI, "demo", "--quick", "--json", "--device", "cpu", "--data-dir", str(folder)],
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "data"


def test_demonstration_succeeds_when_it_runs_again_on_its_own_folder(folder: Path) -> None:
    figures, said = _demo(folder)
    assert json.loads((folder / "demo.json").read_text()) == figures
    tenants = figures["tenants"]
    assert {each["domain"] for each in tenants} == {"movies", "products", "news", "tweets"}
    assert {each["base"] for each in tenants} == {"minilm-k3", "minilm-k0"}
    assert figures["mean_accuracy"] > figures["mean_majority"]

    before, after = figures["batches"]
    assert before["lines"] == after["lines"] == sum(each["test"] for each in tenants)
    assert 0 < before["hit_rate"] < after["hit_rate"]
    assert after["hit_rate"] > 0.99  # the rebuild has seen these very sentences
    assert after["tree"] > before["tree"] >= 1
    assert figures["comparison"]["beyond_rounding"] == 0
    (node,) = figures["nodes"].values()
    assert node["host"]["entries"] == node["on_device"]["entries"] == len(tenants)
    assert "made by an earlier run" not in said

    again, said = _demo(folder)
    assert "made by an earlier run" in said
    assert "5 adapters were trained by an earlier run" in said
    assert "an earlier run left tree" in said
    assert [each["accuracy"] for each in again["tenants"]] == pytest.approx(
        [each["accuracy"] for each in tenants], abs=0.03
    )
    assert again["batches"][0]["hit_rate"] > 0.99
    assert not (folder / "running.json").exists()


@pytest.fixture
def interrupted(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [*HMI, "demo", "--quick", "--device", "cpu", "--data-dir", str(tmp_path / "data")]
    with subprocess.Popen(
        command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def test_no_process_is_left_when_it_is_interrupted(interrupted: subprocess.Popen[str], tmp_path: Path) -> None:
    wait_until((tmp_path / "data" / "running.json").exists, 180, what="the services' start")
    children = [child.pid for child in psutil.Process(interrupted.pid).children(recursive=True)]
    assert len(children) >= 5
    interrupted.send_signal(signal.SIGINT)
    _, errors = interrupted.communicate(timeout=90)
    assert interrupted.returncode == 130
    assert errors.strip().endswith("stopped")
    assert "Traceback" not in errors
    wait_until(lambda: not any(map(is_running, children)), what="the services' end")


def test_reason_is_plain_when_the_data_folder_cannot_be_used(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.touch()
    command = [*HMI, "demo", "--quick", "--data-dir", str(taken)]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: data folder {taken}")
    assert "Traceback" not in done.stderr
