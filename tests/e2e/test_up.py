"""`hmi up` as a person uses it: real processes, driven by the other commands and by signals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from hmi.cli.local import Services, ServiceState
from hmi.cli.local.redis import find_server
from hmi.errors import HmiError
from hmi.settings import Settings
from tests.running import HMI, Up, running_up
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

# Longer than a socket's path may be, and with letters that mean something in a URL and in redis.conf.
_AWKWARD = 'a "data" folder#1%20?' + "x" * 100


def _batch_file(folder: Path) -> Path:
    lines = [
        {
            "custom_id": f"line {n}",
            "method": "POST",
            "url": "/v1/classify",
            "body": {"model": "acme/none", "input": "a"},
        }
        for n in range(3)
    ]
    path = folder / "requests.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_commands_work_and_nothing_is_left_when_everything_ran_and_was_interrupted(tmp_path: Path) -> None:
    with running_up(tmp_path / _AWKWARD) as up:
        assert len(up.children()) == 5
        assert up.folder.stat().st_mode & 0o777 == 0o700
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([up.folder.name, up.log.name])
        for secret in ("admin.key", "redis.password", "flower.password"):
            assert (up.folder / secret).stat().st_mode & 0o777 == 0o600
            assert not any((up.folder / secret).read_text().strip() in command for command in up.children().values())
        _manage(up)
        _run_a_batch(up, tmp_path)
        _look_at_flower(up)

        # A second instance is refused, and harms nothing.
        assert f"in use by process {up.pid}" in up.run("up", status=1)

        # A worker that dies is started again and takes work.
        worker = up.child("worker run")
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: "worker  restarted" in up.log.read_text())
        _run_a_batch(up, tmp_path)
        assert up.end(signal.SIGINT) == 0
    order = re.findall(r"^ *(\w+)  stopped", up.log.read_text(), re.MULTILINE)
    assert order == ["api", "beat", "worker", "flower", "redis"]
    assert not (up.folder / "running.json").exists()


def _manage(up: Up) -> None:
    up.run("domain", "add", "reviews")
    up.run("domain", "add", "movies", "--parent", "reviews")
    assert up.run("domain", "list") == "general\n└── reviews\n    └── movies\n"
    assert up.run("domain", "add", "movies", status=1).startswith("error: ")
    key = up.run("tenant", "add", "acme", "--weight", "2", "--with-key").strip()
    assert ("acme", 2) in {(each["name"], each["weight"]) for each in json.loads(up.run("tenant", "list", "--json"))}
    assert "key is unknown" in up.run("tenant", "list", "--key", "hmi_wrong", status=1)
    assert up.run("batch", "list", "--key", key) == "no batches\n"
    assert up.run("tenant", "list", "--key", key, status=1).startswith("error: ")  # no admin
    key_id = json.loads(up.run("key", "list", "acme", "--json"))[0]["id"]
    up.run("key", "revoke", "acme", key_id)
    assert "revoked" in up.run("batch", "list", "--key", key, status=1)
    assert up.run("base", "list") == "no base models\n"
    assert up.run("model", "list") == "no models\n"
    assert "no base" in up.run("model", "register", "acme/m", "--base", "absent", status=1)
    assert "no base" in up.run("tree", "rebuild", "absent", status=1)
    up.run("db", "check")
    up.run("db", "upgrade")
    status = json.loads(up.run("status", "--json"))
    assert [node["pid"] for node in status["nodes"]] == [up.child("worker run")]
    assert "hmi-cpu" in up.run("status")
    up.run("tenant", "delete", "acme", "--yes")


def _run_a_batch(up: Up, folder: Path) -> None:
    """No model is registered: each line gets its own error."""
    batch = json.loads(up.run("batch", "submit", str(_batch_file(folder)), "--wait", "--json"))
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 3, "completed": 0, "failed": 3}
    errors = up.run("batch", "output", batch["id"], "--errors").splitlines()
    assert sorted(json.loads(line)["custom_id"] for line in errors) == ["line 0", "line 1", "line 2"]
    target = folder / "errors.jsonl"
    up.run("batch", "output", batch["id"], "--errors", "--out", str(target))
    assert target.read_text().splitlines() == errors
    assert up.run("batch", "output", batch["id"]) == ""
    assert f"{batch['id']} completed" in up.run("batch", "status", batch["id"])


def _look_at_flower(up: Up) -> None:
    found = re.search(r"Flower  (\S+)   \(user (\S+), password (\S+)\)", up.welcome)
    assert found
    url, user, password = found.groups()
    assert httpx.get(url, timeout=20).status_code == 401
    workers = httpx.get(f"{url}/api/workers", params={"refresh": "1"}, auth=(user, password), timeout=20).json()
    assert [name.split("@")[0] for name in workers] == ["hmi-cpu"]


def test_nothing_is_left_when_interrupted_while_starting(tmp_path: Path) -> None:
    up = Up(tmp_path / "data")
    command = [*HMI, "up", "--device", "cpu", "--port", "0", "--flower-port", "0"]
    with up.log.open("w") as log:
        up.process = subprocess.Popen(command, env=up.environment, stdout=subprocess.PIPE, stderr=log, text=True)
    wait_until(lambda: "worker  starting" in up.log.read_text())
    wait_until(lambda: len(up.children()) == 5)
    # CPython ends by the signal after all where the interrupt fell into `exec` of a string, as imports do it,
    # though it was caught further out.
    assert up.end(signal.SIGINT) in {0, -signal.SIGINT}
    assert up.log.read_text().endswith("redis  stopped\nstopped\n")


def test_folder_is_taken_over_with_its_keys_when_the_first_instance_was_killed(tmp_path: Path) -> None:
    with running_up(tmp_path / "data") as up:
        first = up.welcome
        up.end(signal.SIGKILL)
        up.start()
        keys = {re.search(r"key     (\S+)", text)[1] for text in (first, up.welcome)}  # type: ignore[index]
        assert len(keys) == 1
        assert up.end(signal.SIGTERM) == 128 + signal.SIGTERM
        assert up.log.read_text().rstrip().endswith("redis  stopped")


def test_port_is_named_and_nothing_runs_when_it_is_in_use(tmp_path: Path) -> None:
    up = Up(tmp_path / "data")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        message = up.run("up", "--port", str(port), status=1)
    assert message == f"error: port {port} on 127.0.0.1 is in use; choose another for the API\n"


def test_service_is_named_with_its_log_when_it_cannot_start(tmp_path: Path) -> None:
    states: list[tuple[str, ServiceState]] = []
    services = Services(
        Settings(threads=1),
        tmp_path,
        device="cuda:99",
        on_event=lambda event: states.append((event.service, event.state)),
    )
    with pytest.raises(HmiError) as caught, services:
        pass
    assert caught.value.message.startswith("worker died (exit code 1); the end of ")
    assert "cuda" in caught.value.message.split("\n", 1)[1]
    assert states[-1] == ("redis", ServiceState.STOPPED)


def test_no_redis_is_started_when_a_broker_is_set(tmp_path: Path) -> None:
    server = find_server()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([server, "--port", str(port), "--save", ""], stdout=subprocess.DEVNULL) as broker:
        try:
            settings = Settings(threads=1, broker_url=f"redis://127.0.0.1:{port}/0")
            with Services(settings, tmp_path / "data", device="cpu", flower_port=None) as services:
                services.check()
                assert {path.stem for path in (services.data_dir / "logs").iterdir()} == {"api", "worker", "beat"}
                assert services.flower_url is None
                assert httpx.get(f"{services.api_url}/readyz", timeout=20).is_success
            assert not (tmp_path / "data" / "redis").exists()
        finally:
            broker.terminate()
