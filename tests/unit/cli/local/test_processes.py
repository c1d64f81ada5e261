from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hmi.cli.local import ServiceEvent
from hmi.cli.local.processes import Processes, ProcessSpec, ServiceState, tail
from hmi.errors import HmiError
from tests.waiting import is_running, wait_until

_FOR_EVER = "import time; print('begun', flush=True); time.sleep(600)"
_DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('begun', flush=True); time.sleep(600)"
)


class Scene:
    """Processes under test, with what they reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[ServiceEvent] = []
        self.processes = Processes(self.events.append)

    def start(self, name: str, code: str, stop_seconds: float = 10) -> ProcessSpec:
        spec = ProcessSpec(
            name, (sys.executable, "-c", code), dict(os.environ), self.folder / f"{name}.log", stop_seconds
        )
        self.processes.start(spec)
        return spec

    def start_and_wait(self, name: str, code: str, stop_seconds: float = 10) -> int:
        spec = self.start(name, code, stop_seconds)
        wait_until(lambda: "begun" in tail(spec.log))
        pid = self.processes.pid(name)
        assert pid is not None
        return pid

    def states(self, name: str) -> list[ServiceState]:
        return [event.state for event in self.events if event.service == name]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.processes.hurry()
    scene.processes.stop([])


def test_stop_follows_the_order_when_one_is_given(scene: Scene) -> None:
    for name in ("one", "two", "three"):
        scene.start_and_wait(name, _FOR_EVER)
    scene.processes.stop(["two", "three"])
    stopped = [event.service for event in scene.events if event.state is ServiceState.STOPPED]
    assert stopped == ["two", "three", "one"]


def test_process_is_killed_when_it_does_not_stop_in_time(scene: Scene) -> None:
    pid = scene.start_and_wait("deaf", _DEAF, stop_seconds=0.2)
    scene.processes.stop([])
    assert scene.states("deaf")[-1] is ServiceState.KILLED
    assert not is_running(pid)


def test_stop_kills_at_once_when_hurried(scene: Scene) -> None:
    scene.start_and_wait("deaf", _DEAF, stop_seconds=600)
    scene.processes.hurry()
    began = time.monotonic()
    scene.processes.stop([])
    assert time.monotonic() - began < 10


def test_check_names_the_process_and_its_log_when_it_died_before_all_were_ready(scene: Scene) -> None:
    spec = scene.start("broken", "import sys; print('no such table: tenants'); sys.exit(3)")
    wait_until(lambda: ServiceState.DIED in scene.states("broken"))
    with pytest.raises(HmiError) as caught:
        scene.processes.check()
    assert caught.value.code == "service_died"
    assert "broken died (exit code 3)" in caught.value.message
    assert str(spec.log) in caught.value.message
    assert "no such table: tenants" in caught.value.message


def test_check_raises_when_the_command_does_not_exist(scene: Scene) -> None:
    log = scene.folder / "absent.log"
    scene.processes.start(ProcessSpec("absent", ("/nowhere/server",), dict(os.environ), log))
    wait_until(lambda: ServiceState.DIED in scene.states("absent"))
    with pytest.raises(HmiError, match="cannot run /nowhere/server"):
        scene.processes.check()


def test_process_is_started_again_when_it_was_killed(scene: Scene) -> None:
    first = scene.start_and_wait("worker", _FOR_EVER)
    scene.processes.keep_alive()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: ServiceState.RESTARTED in scene.states("worker"))
    second = scene.processes.pid("worker")
    assert second is not None
    assert second != first
    scene.processes.check()
    died = next(event for event in scene.events if event.state is ServiceState.DIED)
    assert "SIGKILL" in died.detail


def test_check_raises_when_a_process_keeps_ending(scene: Scene) -> None:
    scene.processes.keep_alive()
    scene.start("loop", "import sys; sys.exit(1)")

    def is_given_up() -> bool:
        try:
            scene.processes.check()
        except HmiError as error:
            return "3 times in a row" in error.message
        return False

    wait_until(is_given_up)


def test_nothing_is_started_again_when_stopping(scene: Scene) -> None:
    scene.start_and_wait("worker", _FOR_EVER)
    scene.processes.keep_alive()
    scene.processes.stop(["worker"])
    assert ServiceState.RESTARTED not in scene.states("worker")
    assert scene.processes.pid("worker") is None or not is_running(scene.processes.pid("worker") or 0)


def test_children_lead_groups_of_their_own_when_started(scene: Scene) -> None:
    pid = scene.start_and_wait("worker", _FOR_EVER)
    assert os.getpgid(pid) == pid
    assert os.getsid(pid) == pid


def test_services_keep_running_when_reporting_fails(tmp_path: Path) -> None:
    def fail(event: ServiceEvent) -> None:
        raise BrokenPipeError

    scene = Scene(tmp_path)
    scene.processes.stop([])
    scene.processes = Processes(fail)
    pid = scene.start_and_wait("worker", _FOR_EVER)
    scene.processes.check()
    assert is_running(pid)
    scene.processes.stop([])
    assert not is_running(pid)


def test_children_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    program = f"""
import os, sys, time
from pathlib import Path
from hmi.cli.local.processes import Processes, ProcessSpec
processes = Processes(lambda event: None)
for name in ("one", "two"):
    command = (sys.executable, "-c", {_DEAF!r})
    processes.start(ProcessSpec(name, command, dict(os.environ), Path({str(tmp_path)!r}) / name))
while not (processes.pid("one") and processes.pid("two")):
    time.sleep(0.01)
print(processes.pid("one"), processes.pid("two"), flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        wait_until(lambda: all("begun" in tail(tmp_path / name) for name in ("one", "two")))
        assert all(map(is_running, pids))
        parent.kill()
    wait_until(lambda: not any(map(is_running, pids)))


def test_tail_gives_the_last_lines_when_the_log_is_long(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert tail(log, 2) == "line 99998\nline 99999"
    assert not tail(tmp_path / "absent")


def test_process_is_restarted_when_it_ended_just_before_keep_alive(scene: Scene) -> None:
    scene.start("early", "pass")
    wait_until(lambda: ServiceState.DIED in scene.states("early"))
    scene.processes.keep_alive()
    wait_until(lambda: ServiceState.RESTARTED in scene.states("early"))
