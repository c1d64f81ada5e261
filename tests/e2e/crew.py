"""A worksite with its processes: workers and beat, as they are run in earnest."""

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

__all__ = ["Crew", "Member", "hired"]

ROOT = Path(__file__).parents[2]
# Short enough for a test to see them pass, long enough for two busy cores to keep them.
HURRY = {
    "lease_seconds": 3,
    "reconcile_seconds": 0.5,
    "dispatch_seconds": 0.3,
    "queued_timeout_seconds": 5,
    "flush_seconds": 1,
    "worker_threads": 2,
}
# The fault handler writes the stacks of all threads when the process is told to abort (`Member.autopsy`).
_VARIABLES = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
_LOG_SHOWN = 12_000  # characters


class Member:
    """One process and its log."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Until the log has `text`; a process that ended without it fails at once."""

        def found() -> bool:
            if text in self.log:
                return True
            assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}:\n{self.log}"
            return False

        wait_until(found, seconds, what=f"{text!r} in the log", evidence=self.autopsy)

    def end(self, by: signal.Signals, seconds: float = 30) -> int:
        """Send the signal and give the exit status."""
        self.process.send_signal(by)
        return self.process.wait(seconds)

    def autopsy(self) -> str:
        """How it stands with the process, and the end of its log: where it still ran, with the stacks of all its
        threads, at the price of its life."""
        status = self.process.poll()
        if status is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        state = "running" if status is None else f"ended with {status}"
        return f"--- {self.name}, {state} ---\n{self.log[-_LOG_SHOWN:]}\n"


class Crew:
    """Starts members; `hired` ends what is left of them."""

    def __init__(self, site: Worksite, folder: Path) -> None:
        self.site = site
        self.members: list[Member] = []
        self._folder = folder

    def wait_until(self, condition: Callable[[], object], seconds: float = 60, *, what: str = "the condition") -> None:
        """As `tests.waiting.wait_until`; what does not come true is told with every member's log and stacks."""
        wait_until(condition, seconds, what=what, evidence=lambda: "".join(member.autopsy() for member in self.members))

    def beat(self) -> Member:
        return self._start("beat", ["worker", "beat", "--schedule", str(self._folder / "beat-schedule")])

    def flower(self, port: int) -> Member:
        return self._start("flower", ["worker", "flower", "--port", str(port)])

    def worker(self, *arguments: str, **environment: str) -> Member:
        """A real worker on the CPU."""
        return self._start("worker", ["worker", "run", "--device", "cpu", *arguments], **environment)

    def stub_worker(self, name: str = "stub@here", **environment: str) -> Member:
        return self._start(name, ["tests.e2e.stub_worker", name], **environment)

    def _start(self, name: str, module: list[str], **environment: str) -> Member:
        log = self._folder / f"{len(self.members)}-{name}.log"
        variables = {key: value for key, value in os.environ.items() if not key.startswith("HMI_")}
        variables |= self.site.environment() | _VARIABLES | environment
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", *module], cwd=ROOT, env=variables, stdout=out, stderr=out
            )
        self.members.append(Member(name, process, log))
        return self.members[-1]

    def dismiss(self) -> None:
        for member in self.members:
            if member.process.poll() is None:
                member.process.send_signal(signal.SIGCONT)
                member.process.terminate()
        deadline = time.monotonic() + 15
        for member in self.members:
            try:
                member.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()


@contextlib.contextmanager
def hired(folder: Path, **settings: Any) -> Iterator[Crew]:
    """A migrated SQLite catalog, a real Redis, and a crew to be started for them."""
    url = f"sqlite:///{folder / 'catalog.db'}"
    upgrade_schema(url)
    with redis_server() as redis_url:
        site = Worksite(folder / "data", url, redis_url, **(HURRY | settings))
        crew = Crew(site, folder)
        try:
            yield crew
        finally:
            crew.dismiss()
            site.close()
