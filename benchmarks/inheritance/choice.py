"""From answers to losses with their uncertainty, and from those to a default tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_CHANGED", "MOST_LOST", "RULE", "Loss", "choose", "lost"]

MOST_LOST = 0.005
MOST_CHANGED = 0.005
RULE = (
    f"the largest tolerance up to which, with 95 % confidence, accuracy lost is below {MOST_LOST:.1%} over all domains "
    f"together, and at most {MOST_CHANGED:.1%} of the answers differ from those that the domains' own rows give: a row "
    "that is computed is always the domain's own, and an answer should not depend on what the tree holds"
)
_DEVIATIONS = 1.96  # of a normal distribution, for 95 %


@dataclass(frozen=True, slots=True)
class Loss:
    """Accuracy lost, 0..1, negative where some was gained: the mean, and a 95 % confidence interval."""

    mean: float
    low: float
    high: float


def lost(before: Mapping[str, NDArray[np.bool_]], after: Mapping[str, NDArray[np.bool_]]) -> Loss:
    """What the change from `before` to `after` costs, as the mean of the domains.

    The same sentences were asked before and after, so only those whose answer changed make it uncertain. Tenants of
    one domain are asked the same sentences and are no independent evidence: each sentence counts once, with the mean
    of its tenants.

    Args:
        before, after: By domain, whether each answer was right, bool `[seeds, sentences]`.
    """
    means, variances = [], []
    for domain, right in before.items():
        each = (right.astype(np.float64) - after[domain]).mean(axis=0)  # [sentences]
        means.append(each.mean())
        variances.append(each.var(ddof=1) / len(each))
    mean = float(np.mean(means))
    deviation = float(np.sqrt(np.sum(variances)) / len(variances))
    return Loss(mean, mean - _DEVIATIONS * deviation, mean + _DEVIATIONS * deviation)


def choose(tolerances: Sequence[float], losses: Sequence[Loss], changed: Sequence[float]) -> float:
    """The default by `RULE`; 0 where nothing else passes.

    Args:
        tolerances: Ascending; the first is 0 and the last is without limit.
        changed: Share of the answers that differ from those at tolerance 0.
    """
    best = tolerances[0]
    for tolerance, loss, share in zip(tolerances[:-1], losses, changed, strict=False):
        if tolerance > 0 and (loss.high >= MOST_LOST or share > MOST_CHANGED):
            break
        best = tolerance
    return best
