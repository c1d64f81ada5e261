"""What this process serves from the catalog: base models, adapters and trees for the engine, and the counts that flow
back.

Start with `CatalogSource`, which the engine loads from. `desired` says which tree a base model should look up in,
`tables` opens and verifies its tables once, `flush` writes the engine's n-gram counts into the catalog.
"""

from __future__ import annotations

from worker.serving.desired import desired_tree
from worker.serving.flush import FrequencyFlusher
from worker.serving.source import CatalogSource

__all__ = ["CatalogSource", "FrequencyFlusher", "desired_tree"]
