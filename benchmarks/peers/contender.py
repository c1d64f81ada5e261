"""Who takes part, and what each of them must be able to do."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.plan import Batch, Plan


class Runner(Protocol):
    """An engine with everything loaded."""

    def run(self, batches: Sequence[Batch]) -> NDArray[np.float32]:
        """Run the batches to the end: probabilities `[all rows, labels]` on the host; states from who has no heads."""

    def check(self) -> None:
        """Raises where the engine did not do what its figure would stand for."""


class EngineModule(Protocol):
    """A module of this package that runs one engine."""

    def start(self, plan: Plan, folder: Path, variant: str) -> AbstractContextManager[Runner]:
        """Load everything."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One engine of the comparison."""

    name: str
    module: str  # of this package; it has a function `start`
    variant: str = ""  # passed to `start`
    shares_cores: bool = False  # runs with the settings that HMI's own processes make for themselves
    library: str | None = None  # name of a folder whose packages come before the environment's

    def load(self) -> EngineModule:
        """Import the engine. Raises `ImportError` where a package is missing."""
        return cast(EngineModule, importlib.import_module(f"benchmarks.peers.{self.module}"))


CONTENDERS = (
    Contender("hmi_k0", "hmi_engine", "all", shares_cores=True),
    Contender("hmi_k6", "hmi_engine", "upper", shares_cores=True),
    Contender("full_model", "full_model"),
    Contender("per_tenant", "peft_runner", "per_tenant"),
    Contender("peft", "peft_runner", "mixed"),
    Contender("adapters", "adapterhub_runner", library="adapterhub"),
    Contender("polylora", "polylora_runner", library="polylora"),
)
EXTRAS = (
    Contender("peft_upper", "peft_runner", "mixed_upper"),
    Contender("tuned_full_model", "full_model", shares_cores=True),
    Contender("tuned_peft", "peft_runner", "mixed", shares_cores=True),
)
