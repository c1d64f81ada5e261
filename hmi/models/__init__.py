"""Models: the hPLMs of each family (`families`), the layers they share (`layers`), conversion of pretrained models
(`convert`) and text handling that needs no torch (`text`). Importing this package loads none of them.
"""

from __future__ import annotations

__all__ = ["convert", "families", "layers", "text"]
