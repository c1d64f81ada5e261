"""The training process, as its worker sees it.

Training has a process of its own: a crash or a lack of memory does not end the worker, it does not share serving's
interpreter lock, and it has a lower priority on the processor. It ends with the worker, however the worker ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import worker
from hmi import die_with_parent
from hmi.errors import HmiError
from worker.tuning.protocol import GO, Done, Failed, Order, Step, decode, encode

_DIED = "trainer_died"
_STOP_SECONDS = 10.0  # for the current step and the checkpoint after it
_BLOCK = 64 * 1024


def trainer_command() -> tuple[str, ...]:
    # -P: a folder named `worker` in the working directory must not shadow this package.
    return sys.executable, "-P", "-m", "worker.tuning.trainer"


def _environment() -> dict[str, str]:
    """Return this process's environment, with its own packages first on the path."""
    root = str(Path(worker.__file__).resolve().parent.parent)
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


class TrainingProcess:
    """A process that works through an order step by step; a context manager that ends it.

    For one thread, which must live as long as the process: the kernel treats that thread's end as the parent's.
    """

    def __init__(self, order: Order) -> None:
        self._process = subprocess.Popen(
            [*die_with_parent.launcher(), *trainer_command()],
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._poll = select.poll()  # `select` is limited to file descriptors below 1,024
        if self._process.stdout is not None:
            self._poll.register(self._process.stdout, select.POLLIN)
        self._buffer = b""
        self._last_message = time.monotonic()
        self._send(encode(order))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def silent_seconds(self) -> float:
        """Since the last message in either direction."""
        return time.monotonic() - self._last_message

    def receive(self, seconds: float) -> Step | Done | Failed | None:
        """Return the next message, None if there is none within `seconds`.

        Raises `HmiError` (code `trainer_died`) if the process ended in the middle of its work.
        """
        deadline = time.monotonic() + seconds
        output = self._process.stdout
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or output is None or not self._poll.poll(1000 * left):
                return None
            block = os.read(output.fileno(), _BLOCK)
            if not block:
                raise HmiError(f"the training process {self._how_it_ended()}", code=_DIED)
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        self._last_message = time.monotonic()
        try:
            return decode(line)
        except ValueError as error:
            raise HmiError(str(error), code=_DIED) from error

    def resume(self) -> None:
        """Answer a step. Does nothing if the process is gone, which `receive` reports."""
        self._last_message = time.monotonic()
        self._send(GO)

    def kill(self) -> None:
        self._process.kill()

    def stop(self) -> None:
        """Let the process write its checkpoint and end, or kill it. May be called twice."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _send(self, line: bytes) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(line)

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if status >= 0:
            return f"ended with exit code {status}"
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-status).name}"
        return f"was killed by signal {-status}"
