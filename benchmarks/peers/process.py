"""The driver's end of an engine's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contender import Contender
from benchmarks.peers.plan import Workload

_ROOT = Path(__file__).resolve().parents[2]
_LOG_TAIL = 2000


class Unavailable(Exception):
    """The engine cannot run here; the message says why."""


class EngineProcess:
    """Imports its engine while the run's files are written; then comes `load`, then `wait`, then rounds.

    All methods raise `Unavailable` if the process gave up or ended.
    """

    def __init__(self, contender: Contender, folder: Path) -> None:
        self._log = folder / f"{contender.name}.log"
        path = [str(_ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        if contender.library is not None:
            path.insert(0, str(_library(contender.library)))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.peers.serve", contender.name, str(folder)],
                cwd=_ROOT,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path)), "HF_HUB_OFFLINE": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def load(self) -> None:
        """Let it load the run's files."""
        self._write("")

    def wait(self) -> dict[str, Any]:
        """What it runs with, once it has loaded: `versions`."""
        return self._read()

    def run(self, workload: Workload, batches: int) -> float:
        """Seconds of one round."""
        return float(self._ask(workload, batches, answers=False)["seconds"])

    def answers(self, workload: Workload, batches: int) -> NDArray[np.float32]:
        """What the engine answers: float32 `[rows, labels]`."""
        return np.array(self._ask(workload, batches, answers=True)["answers"], np.float32)

    def log_tail(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-_LOG_TAIL:]

    def close(self) -> None:
        """End the process; it has nothing to save."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()

    def _ask(self, workload: Workload, batches: int, *, answers: bool) -> dict[str, Any]:
        self._write(json.dumps({"workload": workload.value, "batches": batches, "answers": answers}))
        return self._read()

    def _write(self, line: str) -> None:
        with suppress(BrokenPipeError):  # it has ended, and what can be read of it says why
            print(line, file=self._process.stdin, flush=True)

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise Unavailable(f"its process ended with {self._process.wait()}: {self.log_tail()}")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise Unavailable(message["error"])
        return message


def _library(name: str) -> Path:
    """The folder of a library that `make` puts aside; HMI_<NAME>_PATH names another place."""
    return Path(os.environ.get(f"HMI_{name.upper()}_PATH") or _ROOT / ".cache" / name)
