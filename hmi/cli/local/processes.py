"""Child processes that are watched, restarted, and ended with this process.

One thread starts and watches them all and lives as long as they do: the kernel's "parent died" signal (see
hmi/die_with_parent.py) is sent when the *thread* that started a child ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hmi import die_with_parent
from hmi.errors import HmiError

_log = logging.getLogger(__name__)

_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 30.0
_STABLE_SECONDS = 60.0  # a process that ran for so long restarts without delay
_CRASHES_IN_A_ROW = 3  # from then on `check` raises, though it is still restarted
_WATCH_SECONDS = 0.1


class ServiceState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DIED = "died"
    RESTARTED = "restarted"
    STOPPING = "stopping"
    STOPPED = "stopped"
    KILLED = "killed"  # it did not stop within its deadline


@dataclass(frozen=True, slots=True)
class ServiceEvent:
    service: str
    state: ServiceState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """The command, the whole environment and the log of one process."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    stop_seconds: float = 10.0  # from SIGTERM to SIGKILL


@dataclass(slots=True)
class _Child:
    spec: ProcessSpec
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0  # monotonic
    next_start: float | None = 0.0  # monotonic; None: it is not restarted
    crashes: int = 0  # in a row
    ending: str = ""  # how it last ended; "" before the first end
    stopping: bool = False


class Processes:
    """Start, watch, restart and stop processes. `report` is called in the watching thread and in `stop`'s caller."""

    def __init__(self, report: Callable[[ServiceEvent], None]) -> None:
        self._report_to = report
        self._lock = threading.Lock()
        self._children: dict[str, _Child] = {}
        self._restart = False
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._closed = threading.Event()
        # A daemon, so that a process that ends without `stop` does not hang; the children end with it.
        self._thread = threading.Thread(target=self._watch, name="hmi-processes", daemon=True)
        self._thread.start()

    def start(self, spec: ProcessSpec) -> None:
        """Start a process soon; returns at once."""
        with self._lock:
            self._children[spec.name] = _Child(spec)
        self._report(ServiceEvent(spec.name, ServiceState.STARTING))
        self._wake.set()

    def keep_alive(self) -> None:
        """From now on restart every process that ends or has ended, with growing pauses. Before, an end is final."""
        with self._lock:
            self._restart = True
            for child in self._children.values():
                if child.next_start is None:
                    child.next_start = time.monotonic()
        self._wake.set()

    def pid(self, name: str) -> int | None:
        """None while it is not running."""
        with self._lock:
            process = self._children[name].process
        return process.pid if process else None

    def check(self) -> None:
        """Raise `HmiError` (code `service_died`) with the end of its log if a process is down for good.

        That is one that is not restarted, or that ended three times in a row soon after its start.
        """
        with self._lock:
            dead = [
                child
                for child in self._children.values()
                if not child.process and child.ending and (not self._restart or child.crashes >= _CRASHES_IN_A_ROW)
            ]
        if dead:
            spec = dead[0].spec
            times = f" {dead[0].crashes} times in a row" if dead[0].crashes > 1 else ""
            raise HmiError(
                f"{spec.name} died{times} ({dead[0].ending}); the end of {spec.log}:\n{tail(spec.log)}",
                code="service_died",
            )

    def stop(self, order: Sequence[str]) -> None:
        """Stop the named processes one after the other, then the others; nothing is restarted any more."""
        with self._lock:
            children = dict(self._children)
            for child in children.values():
                child.stopping = True
        rest = [name for name in children if name not in order]
        for name in [*order, *rest]:
            if name in children:
                self._stop_one(children[name])
        self._closed.set()
        self._wake.set()
        self._thread.join()

    def hurry(self) -> None:
        """Make a running or later `stop` kill at once."""
        self._hurry.set()

    def _watch(self) -> None:
        while not self._closed.is_set():
            try:
                with self._lock:
                    events = [event for child in self._children.values() if (event := self._step(child))]
                for event in events:
                    self._report(event)
            except Exception:  # noqa: BLE001 - the children end with this thread
                _log.exception("watching the services failed")
            self._wake.wait(_WATCH_SECONDS)
            self._wake.clear()

    def _step(self, child: _Child) -> ServiceEvent | None:
        if child.stopping:
            return None
        if child.process is not None:
            status = child.process.poll()
            return None if status is None else self._ended(child, _how_it_ended(status))
        if child.next_start is None or time.monotonic() < child.next_start:
            return None
        child.started = time.monotonic()
        try:
            child.process = _spawn(child.spec)
        except OSError as error:
            return self._ended(child, f"it could not be started: {error}")
        if not child.ending:
            return None
        return ServiceEvent(child.spec.name, ServiceState.RESTARTED, f"process {child.process.pid}")

    def _ended(self, child: _Child, how: str) -> ServiceEvent:
        now = time.monotonic()
        child.process, child.ending = None, how
        child.crashes = 1 if now - child.started >= _STABLE_SECONDS else child.crashes + 1
        if not self._restart:
            child.next_start = None
            return ServiceEvent(child.spec.name, ServiceState.DIED, how)
        delay = min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2 ** (child.crashes - 1))
        child.next_start = now + delay
        return ServiceEvent(child.spec.name, ServiceState.DIED, f"{how}; starting it again in {delay:g} s")

    def _stop_one(self, child: _Child) -> None:
        process, name = child.process, child.spec.name
        if process is None or process.poll() is not None:
            return
        self._report(ServiceEvent(name, ServiceState.STOPPING))
        process.terminate()
        deadline = time.monotonic() + child.spec.stop_seconds
        while process.poll() is None and time.monotonic() < deadline and not self._hurry.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_WATCH_SECONDS)
        if process.poll() is not None:
            self._report(ServiceEvent(name, ServiceState.STOPPED))
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
        process.wait()
        self._report(
            ServiceEvent(name, ServiceState.KILLED, f"it was still running after {child.spec.stop_seconds:g} s")
        )

    def _report(self, event: ServiceEvent) -> None:
        try:
            self._report_to(event)
        except Exception:  # noqa: BLE001 - services must survive a closed terminal
            _log.exception("could not report %s", event)


def _spawn(spec: ProcessSpec) -> subprocess.Popen[bytes]:
    with spec.log.open("ab") as log:
        return subprocess.Popen(
            [*die_with_parent.launcher(), *spec.command],
            env=dict(spec.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal reaches the parent alone, which stops them in order
            umask=0o077,
        )


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, "" without one."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 64 * 1024))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])
