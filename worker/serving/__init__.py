"""TODO"""

from __future__ import annotations

from worker.serving.desired import wanted_tree
from worker.serving.flush import FrequencyFlusher
from worker.serving.source import CatalogSource

__all__ = ["CatalogSource", "FrequencyFlusher", "wanted_tree"]
