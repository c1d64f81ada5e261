"""Model sizes that are measured. Free of torch: starting other processes must not wait for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a BERT, under the names that its config has for them."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int


SHAPES = {
    "tiny": Shape(32, 4, 4, 64),  # to look at the engine's own work
    "minilm": Shape(384, 6, 12, 1536),
    "base": Shape(768, 12, 12, 3072),
}
