"""What every engine has to do, and where the run's files are: written once and read by each process."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmi.bench import Shape

VOCABULARY = 2_000
LABELS = 2
LORA_RANK = 16
LORA_ALPHA = 32
TARGETS = ("query", "value")  # the projections that LoRAs are on
NO_TENANT = -1
_FILE = "plan.json"
_FIRST_ID = 5  # those before are special tokens


class Workload(StrEnum):
    """Whose rows a batch holds: the plan's tenants in turn, as many tenants as rows, or one head without adapters."""

    TENANTS = "tenants"
    DISTINCT = "distinct"
    NONE = "none"


class Depth(StrEnum):
    """Layers with LoRAs: all, or those above the plan's k."""

    ALL = "all"
    UPPER = "upper"


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Tokenised input: ids int64 `[rows, tokens]` without padding, and the number of each row's tenant."""

    ids: NDArray[np.int64]
    tenants: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one run."""

    shape: Shape
    tokens: int  # of every sequence
    sequences: int  # in a batch
    tenants: int  # distinct ones in a batch, assigned to rows in turn
    k: int  # lower layers that `hmi_k6` looks up; six in BERT-base
    in_flight: int  # batches of HMI's rounds: enough for its stages to work at the same time
    device: str  # as torch names it, resolved
    dtype: str

    @property
    def stored_tenants(self) -> int:
        """How many have adapters: enough for batches of distinct ones."""
        return max(self.tenants, self.sequences)

    def batches(self, workload: Workload, count: int) -> list[Batch]:
        """The first `count` batches, the same in every process."""
        sharing = self.sequences if workload is Workload.DISTINCT else self.tenants
        owners = tuple(NO_TENANT if workload is Workload.NONE else row % sharing for row in range(self.sequences))
        rng = np.random.default_rng(0)
        size = (self.sequences, self.tokens)
        return [Batch(rng.integers(_FIRST_ID, VOCABULARY, size), owners) for _ in range(count)]

    def write(self, folder: Path) -> None:
        (folder / _FILE).write_text(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        values = json.loads((folder / _FILE).read_text())
        return cls(**{**values, "shape": Shape(**values["shape"])})


def base_folder(folder: Path) -> Path:
    """transformers' folder of the shared model: `BertForSequenceClassification`."""
    return folder / "base"


def adapter_folder(folder: Path, depth: Depth, tenant: int) -> Path:
    """PEFT's folder of one tenant: LoRA and classifier."""
    return folder / "peft" / depth / str(tenant)


def adapter_name(tenant: int) -> str:
    """The name of a tenant's adapter in a peer's model."""
    return f"tenant-{tenant}"
