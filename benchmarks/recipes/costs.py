"""What a recipe costs in serving, by arithmetic: multiply-adds of matrix products, and bytes of a row.

A layer that is given c tokens and asked for a of them takes, with H values in a state and I in the feed-forward,

    a (2 H^2 + 2 H I + 2 c H) + c 2 H^2

multiply-adds: q, o, feed-forward, scores and their sums of values of what is asked for, k and v of all. A missing
window is k layers of 3 tokens, the last of which is asked for the vectors of the row alone, and the projection of each:
H^2. A looked-up token is the layers above k, and H for each vector where it is made of several.
"""

from __future__ import annotations

from dataclasses import dataclass

from hmi.spec import HPLMSpec

_WINDOW = 3


@dataclass(frozen=True, slots=True)
class Costs:
    """
    Attributes:
        row_bytes: Of an n-gram in a table, beside its key: int8, and a float32 scale for each vector.
        window: Of computing a row, over what the ordinary model takes for a token.
        token: Of a token whose row was looked up, likewise.
    """

    row_bytes: int
    window: float
    token: float


def costs(spec: HPLMSpec, vectors: int, tokens: int) -> Costs:
    """
    Args:
        vectors: Of a row.
        tokens: Of a sequence.
    """
    hidden = spec.hidden_size
    token = _layer(spec, tokens, tokens) / tokens
    window = (spec.k - 1) * _layer(spec, _WINDOW, _WINDOW) + _layer(spec, vectors, _WINDOW) + vectors * hidden**2
    served = (spec.layers - spec.k) * token + (vectors * hidden if vectors > 1 else 0)
    full = spec.layers * token
    return Costs(vectors * (hidden + 4), window / full, served / full)


def _layer(spec: HPLMSpec, asked: int, given: int) -> int:
    hidden, inner = spec.hidden_size, spec.intermediate_size
    return asked * (2 * hidden**2 + 2 * hidden * inner + 2 * given * hidden) + given * 2 * hidden**2
