"""The process that trains, as its worker sees it.

A process of its own: a crash or a want of memory in it leaves the worker alone, it shares no interpreter's lock with
serving, and it can be given less of the processor. It ends with the worker, however the worker ends.
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
from worker.tuning.wire import GO, Order, Said, decode, encode

__all__ = ["TrainingProcess", "trainer_command"]

_DIED = "trainer_died"
_STOP_SECONDS = 10.0  # what a step, and writing a checkpoint after it, may take at the end
_BLOCK = 64 * 1024


def trainer_command() -> tuple[str, ...]:
    # -P: a folder named `worker` in the working directory must not be taken for ours.
    return sys.executable, "-P", "-m", "worker.tuning.trainer"


def _environment() -> dict[str, str]:
    """This process's, with the packages first on the path that it runs itself."""
    root = str(Path(worker.__file__).resolve().parent.parent)
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


class TrainingProcess:
    """Started with an order, it works from step to step; as a context it is gone at the end of the block.

    For one thread, which must live as long as the process: the kernel takes its end for the parent's.
    """

    def __init__(self, order: Order) -> None:
        self._process = subprocess.Popen(
            [*die_with_parent.launcher(), *trainer_command()],
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._poll = select.poll()  # not `select`, which cannot look at a worker's thousandth open file
        if self._process.stdout is not None:
            self._poll.register(self._process.stdout, select.POLLIN)
        self._buffer = b""
        self._heard = time.monotonic()
        self._send(encode(order))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def silent_seconds(self) -> float:
        """Since it last said something, or was last told to go on."""
        return time.monotonic() - self._heard

    def hear(self, seconds: float) -> Said | None:
        """The next message; None where there is none for so long.

        Raises `HmiError` (code `trainer_died`) where there will be none: the process ended in the middle of its work.
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
        self._heard = time.monotonic()
        try:
            return decode(line)
        except ValueError as error:
            raise HmiError(str(error), code=_DIED) from error

    def go_on(self) -> None:
        """Answer a step. To a process that is gone it says nothing: `hear` does."""
        self._heard = time.monotonic()
        self._send(GO)

    def kill(self) -> None:
        self._process.kill()

    def stop(self) -> None:
        """Let it write its checkpoint and end, or end it. Twice is no error."""
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
