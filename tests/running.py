"""A real `hmi up`, driven by the other commands and by signals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
from typer.testing import CliRunner

from hmi.cli.main import app
from tests.waiting import is_running, wait_until

__all__ = ["HMI", "Up", "running_up"]

HMI = (sys.executable, "-m", "hmi.cli.main")


class Up:
    """A running `hmi up` and its folder."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HMI_")}
        self.environment = kept | {"HMI_DATA_DIR": str(folder), "HMI_THREADS": "1"} | environment
        self.log = folder.with_name(f"{folder.name[:20]}.up.log")
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*HMI, "up", "--device", "cpu", "--port", "0", "--flower-port", "0"],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.welcome = ""
        for line in self.process.stdout:
            self.welcome += line
            if "Ctrl-C" in line:
                return
        raise AssertionError(f"hmi up ended with {self.process.wait()}: {self.log.read_text()}")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def children(self) -> dict[int, str]:
        return {child.pid: " ".join(child.cmdline()) for child in psutil.Process(self.pid).children(recursive=True)}

    def child(self, words: str) -> int:
        (pid,) = [pid for pid, command in self.children().items() if words in command]
        return pid

    def run(self, *arguments: str, status: int = 0) -> str:
        """Return a command's standard output, or its standard error if another status is expected.

        It runs in this process, since each start of an interpreter takes longer than most commands do.
        """
        done = CliRunner().invoke(app, arguments, env=self.environment)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit status, once all children have ended."""
        assert self.process is not None
        children = self.children()
        self.process.send_signal(number)
        status = self.process.wait(90)
        assert self.process.stdout is not None
        self.process.stdout.close()
        wait_until(lambda: not any(map(is_running, children)), what=f"the end of {children}")
        self.process = None
        return status


@contextlib.contextmanager
def running_up(folder: Path, **environment: str) -> Iterator[Up]:
    up = Up(folder, **environment)
    up.start()
    try:
        yield up
    finally:
        if up.process is not None:
            up.end(signal.SIGKILL)
