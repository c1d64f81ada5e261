"""Where the run's files lie, and what the tenants' LoRAs sit on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

TARGETS = ("query", "value")


class Depth(StrEnum):
    """Layers with LoRAs: all, or those above the plan's k."""

    ALL = "all"
    UPPER = "upper"


def base_folder(folder: Path) -> Path:
    """transformers' folder of the shared model: `BertForSequenceClassification`."""
    return folder / "base"


def adapter_folder(folder: Path, depth: Depth, tenant: int) -> Path:
    """PEFT's folder of one tenant: LoRA and classifier."""
    return folder / "peft" / depth / str(tenant)
