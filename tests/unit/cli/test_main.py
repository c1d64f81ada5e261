from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hmi.cli.main import app
from hmi.errors import Conflict

_HEAVY = (
    "api",
    "celery",
    "httpx",
    "numpy",
    "pydantic",
    "rich.progress",
    "sqlalchemy",
    "torch",
    "transformers",
    "worker",
)


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hmi.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def test_help_takes_less_than_half_a_second_when_asked_for() -> None:
    # Processor time, since the clock on the wall also counts what else the machine does.
    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    _run("--help")  # leaves compiled files behind
    before = spent()
    assert _run("--help").returncode == 0
    assert spent() - before < 0.5


def test_nothing_heavy_is_imported_when_the_command_is_loaded() -> None:
    program = f"import sys, json, hmi.cli.main; print(json.dumps([m for m in {_HEAVY!r} if m in sys.modules]))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []


def _commands(group: typer.Typer = app, *before: str) -> list[list[str]]:
    found = [
        [*before, str(command.name or command.callback.__name__)]
        for command in group.registered_commands
        if command.callback
    ]
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        found += _commands(inner.typer_instance, *before, str(inner.name))
    return found


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_every_command_has_help_and_an_example_when_asked(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output


def test_known_error_is_one_line_and_status_1_when_raised(tmp_path: Path) -> None:
    result = _run("tenant", "list", HMI_DATA_DIR=str(tmp_path))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: no services run in {tmp_path}")
    assert len(result.stderr.splitlines()) == 1


def test_setting_is_named_when_it_is_wrong() -> None:
    result = _run("db", "upgrade", HMI_SHARD_LINES="many")
    assert result.returncode == 1
    assert "HMI_SHARD_LINES" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_defect_keeps_its_traceback_when_it_is_no_known_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("hmi.cli.commands.options.load_settings", fail)
    result = CliRunner().invoke(app, ["tenant", "list"])
    assert isinstance(result.exception, RuntimeError)


def test_message_is_printed_as_it_is_when_it_holds_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise Conflict("[bold]taken[/bold]")

    monkeypatch.setattr("hmi.cli.commands.options.load_settings", fail)
    result = CliRunner().invoke(app, ["tenant", "list"])
    assert result.exit_code == 1
    assert result.stderr == "error: [bold]taken[/bold]\n"
