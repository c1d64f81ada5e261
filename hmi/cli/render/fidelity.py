"""How near an hPLM is to the model that it was made of, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hmi.training.distill import Fidelity

__all__ = ["fidelity_table"]


def fidelity_table(k: int, before: Fidelity, fitted: Fidelity, after: Fidelity) -> str:
    """Relative errors against the unchanged model, a line for each layer from the k-th."""
    lines = ["error against the unchanged model    converted  fitted  distilled"]
    names = ["after the lookup", *(f"layer {k + number}" for number in range(1, len(after.layers))), "text's mean"]
    columns = [(*each.layers, each.pooled) for each in (before, fitted, after)]
    for name, *values in zip(names, *columns, strict=True):
        lines.append(f"  {name:<34} {values[0]:>9.3f} {values[1]:>7.3f} {values[2]:>10.3f}")
    seen = [each.perplexity for each in (before, fitted, after) if each.perplexity]
    if len(seen) == len(columns):
        rows = {
            f"perplexity, of {seen[0].original:.2f}": [each.perplexity for each in seen],
            "divergence of what comes next, nats": [each.divergence for each in seen],
            "same likeliest token, %": [100 * each.agreement for each in seen],
        }
        for name, values in rows.items():
            lines.append(f"  {name:<35} {values[0]:>8.2f} {values[1]:>7.2f} {values[2]:>10.2f}")
    return "\n".join(lines)
