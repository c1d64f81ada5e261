"""Model sizes that benchmarks run at."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SHAPES", "Shape"]


@dataclass(frozen=True, slots=True)
class Shape:
    """A BERT's sizes, under the names of transformers' configuration."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int


SHAPES = {"minilm": Shape(384, 6, 12, 1536), "base": Shape(768, 12, 12, 3072)}
