"""The states of fine-tuning jobs in groups."""

from __future__ import annotations

from hmi.catalog.tuning_tables import TuningState

__all__ = ["OPEN"]

OPEN = (TuningState.PENDING, TuningState.QUEUED, TuningState.LEASED)
