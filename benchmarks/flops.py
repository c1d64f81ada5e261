"""Floating-point operations that a forward needs, counted by hand: a multiplication and an addition are two.

Matrix products only: projections, attention's two products, LoRA, pooler and head. Norms, softmax, activations and
additions are left out, as they are of the GEMM rate that the count is held against.
"""

from __future__ import annotations

from hmi.bench import Shape


def forward_flops(
    shape: Shape,
    tokens: int,
    *,
    layers: int | None = None,
    lora_rank: int = 0,
    lora_layers: int | None = None,
    labels: int = 0,
    first_only: bool = False,
) -> int:
    """Of one sequence of `tokens` tokens, the pooler on its first token included.

    Args:
        layers: How many are run; None is all.
        lora_rank: Of LoRAs on q and v; 0 is none.
        lora_layers: How many of the layers that are run have them, from the top; None is all.
        labels: Of a linear head on the pooled token.
        first_only: The last layer makes q, k and v of all tokens in one product, and whatever follows for
            the first token alone: what `hmi.models.families.served_bert` does where no head reads the others.
    """
    count = shape.num_hidden_layers if layers is None else layers
    without_lora = 0 if lora_layers is None else count - lora_layers
    hidden = shape.hidden_size
    total = 0
    for layer in range(count):
        asked = 1 if first_only and layer == count - 1 else tokens
        total += 2 * tokens * 3 * hidden * hidden  # q, k, v
        total += 2 * 2 * asked * tokens * hidden  # scores, and their sum of values
        total += 2 * asked * hidden * hidden  # o
        total += 2 * 2 * asked * hidden * shape.intermediate_size  # feed-forward
        if layer >= without_lora:
            total += 2 * (asked + tokens) * 2 * hidden * lora_rank  # on q of the computed tokens, and on v: down and up
    return total + 2 * hidden * hidden + 2 * hidden * labels
