"""All engines of a run, each in its process; those that cannot run here are put aside with the reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contender import Contender
from benchmarks.peers.plan import Workload
from benchmarks.peers.process import EngineProcess, Unavailable


class Fleet:
    """Starts every engine's process at once; leaving the `with` block ends them."""

    def __init__(self, contenders: Sequence[Contender], folder: Path) -> None:
        self.unavailable: dict[str, str] = {}  # why an engine does not run here, by its name
        self.versions: dict[str, dict[str, str | None]] = {}  # packages of each engine, by its name
        self._processes = {each.name: EngineProcess(each, folder) for each in contenders}

    @property
    def names(self) -> list[str]:
        """Of the engines that run."""
        return [name for name in self._processes if name not in self.unavailable]

    def load(self) -> None:
        """Let each load the run's files, and wait until it has or gave up."""
        for process in self._processes.values():
            process.load()
        for name, process in self._processes.items():
            try:
                self.versions[name] = process.wait()["versions"]
            except Unavailable as reason:
                self._put_aside(name, reason)

    def answers(self, name: str, workload: Workload, batches: int) -> NDArray[np.float32] | None:
        """`[rows, labels]`; None from an engine that stopped at it."""
        try:
            return self._processes[name].answers(workload, batches)
        except Unavailable as reason:
            self._put_aside(name, reason)
            return None

    def seconds(self, name: str, workload: Workload, batches: int) -> float:
        """Of one round; not a number from an engine that stopped at it, now or before."""
        if name in self.unavailable:
            return math.nan
        try:
            return self._processes[name].run(workload, batches)
        except Unavailable as reason:
            self._put_aside(name, reason)
            return math.nan

    def _put_aside(self, name: str, reason: Unavailable) -> None:
        if name.startswith("hmi_"):
            log = self._processes[name].log_tail()
            raise SystemExit(f"{name} does not run, and there is nothing to compare without it: {reason}\n{log}")
        self.unavailable[name] = str(reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.close()
