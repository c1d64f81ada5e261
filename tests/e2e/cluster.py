"""A worksite with its processes: workers, beat and Flower, as an operator runs them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hmi.catalog import upgrade_schema
from tests.integration.servers import redis_server
from tests.waiting import wait_until
from tests.worksite import Worksite

__all__ = ["Cluster", "ServiceProcess", "run_cluster"]

ROOT = Path(__file__).parents[2]
# Short enough for a test to wait for, long enough for two busy cores.
SHORT_INTERVALS = {
    "lease_seconds": 3,
    "reconcile_seconds": 0.5,
    "dispatch_seconds": 0.3,
    "queued_timeout_seconds": 5,
    "flush_seconds": 1,
    "worker_threads": 2,
}
# The fault handler writes the stacks of all threads on SIGABRT (`ServiceProcess.diagnose`).
_VARIABLES = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
_LOG_SHOWN = 12_000  # characters


class ServiceProcess:
    """One process and its log."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Wait until the log has `text`; fail at once if the process ends without it."""

        def found() -> bool:
            if text in self.log:
                return True
            assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}:\n{self.log}"
            return False

        wait_until(found, seconds, what=f"{text!r} in the log", details=self.diagnose)

    def end(self, by: signal.Signals, seconds: float = 30) -> int:
        """Send the signal and return the exit status."""
        self.process.send_signal(by)
        return self.process.wait(seconds)

    def diagnose(self) -> str:
        """Return the process's state and the end of its log, with the stacks of all threads; this ends the process."""
        status = self.process.poll()
        if status is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        state = "running" if status is None else f"ended with {status}"
        return f"--- {self.name}, {state} ---\n{self.log[-_LOG_SHOWN:]}\n"


class Cluster:
    """Starts processes; `run_cluster` ends those that are left."""

    def __init__(self, site: Worksite, folder: Path) -> None:
        self.site = site
        self.processes: list[ServiceProcess] = []
        self._folder = folder

    def wait_until(self, condition: Callable[[], object], seconds: float = 60, *, what: str = "the condition") -> None:
        """As `tests.waiting.wait_until`; a failure shows every process's log and stacks."""
        wait_until(
            condition, seconds, what=what, details=lambda: "".join(process.diagnose() for process in self.processes)
        )

    def beat(self) -> ServiceProcess:
        return self._start("beat", ["worker", "beat", "--schedule", str(self._folder / "beat-schedule")])

    def flower(self, port: int) -> ServiceProcess:
        return self._start("flower", ["worker", "flower", "--port", str(port)])

    def worker(self, *arguments: str, **environment: str) -> ServiceProcess:
        """A real worker on the CPU."""
        return self._start("worker", ["worker", "run", "--device", "cpu", *arguments], **environment)

    def stub_worker(self, name: str = "stub@here", **environment: str) -> ServiceProcess:
        return self._start(name, ["tests.e2e.stub_worker", name], **environment)

    def _start(self, name: str, module: list[str], **environment: str) -> ServiceProcess:
        log = self._folder / f"{len(self.processes)}-{name}.log"
        variables = {key: value for key, value in os.environ.items() if not key.startswith("HMI_")}
        variables |= self.site.environment() | _VARIABLES | environment
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", *module], cwd=ROOT, env=variables, stdout=out, stderr=out
            )
        self.processes.append(ServiceProcess(name, process, log))
        return self.processes[-1]

    def stop(self) -> None:
        for each in self.processes:
            if each.process.poll() is None:
                each.process.send_signal(signal.SIGCONT)
                each.process.terminate()
        deadline = time.monotonic() + 15
        for each in self.processes:
            try:
                each.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                each.process.kill()
                each.process.wait()


@contextlib.contextmanager
def run_cluster(folder: Path, **settings: Any) -> Iterator[Cluster]:
    """A migrated SQLite catalog, a real Redis, and a cluster without processes yet."""
    url = f"sqlite:///{folder / 'catalog.db'}"
    upgrade_schema(url)
    with redis_server() as redis_url:
        site = Worksite(folder / "data", url, redis_url, **(SHORT_INTERVALS | settings))
        cluster = Cluster(site, folder)
        try:
            yield cluster
        finally:
            cluster.stop()
            site.close()
