"""Running the test sentences through an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.inheritance.learning import adapter_name, delta_name
from benchmarks.inheritance.plan import DomainText
from hmi.engine import Engine
from hmi.items import Classification, Item, ModelRef, Task

__all__ = ["BASE", "Answers", "ask"]

BASE = "base"
"""The base artifact's name, in place of a digest."""


@dataclass(frozen=True, slots=True)
class Answers:
    """To one domain's test sentences.

    Attributes:
        labels: What was answered, `[seeds, sentences]`.
        right: bool `[seeds, sentences]`.
    """

    labels: NDArray[np.str_]
    right: NDArray[np.bool_]


def ask(
    engine: Engine, texts: Mapping[str, DomainText], seeds: int, max_tokens: int, *, deltas: bool = True
) -> dict[str, Answers]:
    """What the tenants of each domain are answered.

    Args:
        deltas: False asks the models that know of no deltas.
    """
    found = {}
    for domain, text in texts.items():
        delta = delta_name(domain) if deltas else None
        items = [
            Item(
                ModelRef(BASE, domain, adapter_name(domain, seed, deltas=deltas), delta=delta),
                Task.CLASSIFY,
                text=each.text,
                truncate_to=max_tokens,
            )
            for seed in range(seeds)
            for each in text.test
        ]
        labels = np.array(_run(engine, items)).reshape(seeds, -1)
        found[domain] = Answers(labels, labels == np.array([each.label for each in text.test]))
    return found


def _run(engine: Engine, items: list[Item]) -> list[str]:
    labels = []
    for outcome in engine.submit(items).result():
        if outcome.error is not None:
            raise outcome.error
        if not isinstance(outcome.result, Classification):
            raise TypeError(f"a classification was asked for, not {outcome.result}")
        labels.append(outcome.result.label)
    return labels
