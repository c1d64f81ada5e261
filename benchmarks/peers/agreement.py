"""Whether the engines computed the same thing: a comparison of different computations is worth nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

REFERENCE = "hmi_k0"
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.01}
"""Of a probability, after a dozen layers whose states were rounded to the dtype. Without its LoRA a row moves by 0.1 to
0.2, with another tenant's LoRA and head by more."""


class Disagreement(Exception):
    """Two engines gave different answers for the same rows; the message says which and how far apart."""


def differences(answers: Mapping[str, NDArray[np.float32]], dtype: str) -> dict[str, float]:
    """The largest difference of any probability from `hmi_k0`'s, by engine. Raises `Disagreement` above the tolerance.

    Args:
        answers: Probabilities `[rows, labels]` of the same rows, by engine.
    """
    reference = answers[REFERENCE]
    found = {}
    for name, each in answers.items():
        if name == REFERENCE:
            continue
        if each.shape != reference.shape or not np.isfinite(each).all():
            raise Disagreement(f"{name} answers {each.shape}, some not finite; {REFERENCE} answers {reference.shape}")
        found[name] = round(float(np.abs(each - reference).max()), 5)
        if found[name] > TOLERANCES[dtype]:
            raise Disagreement(
                f"{name} and {REFERENCE} do not compute the same: probabilities of the same rows differ by up to "
                f"{found[name]}, more than {TOLERANCES[dtype]}, which {dtype} could explain"
            )
    return found
