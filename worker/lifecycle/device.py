"""Pinning of this process to one device, before torch is imported.

CUDA reads `CUDA_VISIBLE_DEVICES` once, when it starts: a pinned worker cannot use, or take memory on, the device of
another worker.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from hmi.errors import InvalidInput

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_CUDA = re.compile(r"^cuda(?::(\d+))?$")


@dataclass(frozen=True, slots=True)
class PinnedDevice:
    """The device by its two names."""

    engine: str  # `auto`, `cpu` or `cuda:0`: within this process the pinned card is always number 0
    card: str | None  # as the operator counts it; None if no card is pinned

    def label(self, resolved: str) -> str:
        """For names: `cpu`, or `cuda1` where the engine resolved its device to the pinned card."""
        if resolved.startswith("cuda"):
            return f"cuda{self.card}"
        return re.sub(r"[^a-z0-9]", "", resolved)


def pin_device(requested: str, environment: MutableMapping[str, str], devices: Path = Path("/dev")) -> PinnedDevice:
    """Restrict this process to one device. Call it before torch is imported.

    `cuda:N` counts the cards that the environment already allows. `auto` takes the first card if there is one; the
    engine falls back to the CPU if torch cannot use it.

    Raises `InvalidInput` for an unknown device, `RuntimeError` if torch is already imported.
    """
    if "torch" in sys.modules:
        raise RuntimeError("torch was imported before the device was pinned")
    if requested == "cpu":
        environment[_VISIBLE] = ""
        return PinnedDevice("cpu", None)
    allowed = environment.get(_VISIBLE)
    cards = None if allowed is None else [card.strip() for card in allowed.split(",") if card.strip()]
    if requested == "auto":
        if cards == [] or not any(devices.glob("nvidia[0-9]*")):
            environment[_VISIBLE] = ""
            return PinnedDevice("cpu", None)
        index = 0
    elif match := _CUDA.match(requested):
        index = int(match.group(1) or 0)
    else:
        raise InvalidInput(f"device {requested!r} is not one of auto, cpu, cuda:N")
    if cards is not None and index >= len(cards):
        raise InvalidInput(f"device {requested!r} is not here: {_VISIBLE} allows {len(cards)} cards")
    card = str(index) if cards is None else cards[index]
    # Without this, CUDA counts cards by speed, and N names another card than it does elsewhere.
    environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    environment[_VISIBLE] = card
    return PinnedDevice("auto" if requested == "auto" else "cuda:0", card)


def node_name(given: str | None, label: str) -> str:
    """The worker's name in Celery, Flower and the catalog: `hmi-cuda0@host` unless one is given."""
    name = given or f"hmi-{label}"
    return name if "@" in name else f"{name}@{socket.gethostname()}"
