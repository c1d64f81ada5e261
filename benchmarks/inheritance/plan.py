"""What a run of the benchmark takes, and which parts of the text are for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from examples.demo import Part, Sentence, thinned

__all__ = ["FULL", "GENERAL", "QUICK", "UNLIMITED", "DomainText", "Plan", "domain_texts"]

GENERAL = "general"
UNLIMITED = 1e9
"""A tolerance that no row exceeds: what an ancestor holds is never stored again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything a run takes.

    Attributes:
        k: Lower layers that are looked up.
        most_training, most_test: Sentences of each domain, at most.
        general_steps, domain_steps: Of training the root's delta, and each domain's upon it.
        seeds: Tenants of each domain, whose adapters are trained from different seeds.
        epochs: Of training them.
        tolerances: Ascending; the first is 0, which all others are compared with.
    """

    k: int
    most_training: int
    most_test: int
    general_steps: int
    domain_steps: int
    seeds: int
    epochs: int
    tolerances: tuple[float, ...]


FULL = Plan(
    k=3,
    most_training=1500,
    most_test=600,
    general_steps=400,
    domain_steps=120,
    seeds=3,
    epochs=3,
    tolerances=(0, 0.01, 0.02, 0.05, 0.06, 0.075, 0.1, 0.15, 0.2, 0.3, UNLIMITED),
)
QUICK = Plan(
    k=3,
    most_training=128,
    most_test=48,
    general_steps=12,
    domain_steps=8,
    seeds=1,
    epochs=1,
    tolerances=(0, 0.05, 0.1, UNLIMITED),
)


@dataclass(frozen=True, slots=True)
class DomainText:
    """Of one domain: deltas and adapters learn from `training`, `test` is what they are asked."""

    training: tuple[Sentence, ...]
    test: tuple[Sentence, ...]

    @property
    def all(self) -> list[str]:
        return [each.text for each in (*self.training, *self.test)]


def domain_texts(sentences: Mapping[str, Sequence[Sentence]], plan: Plan) -> dict[str, DomainText]:
    """By domain; evenly from beginning to end where there is more, for the files are sorted by subject."""
    return {
        domain: DomainText(
            thinned([each for each in found if each.part is Part.TRAIN], plan.most_training),
            thinned([each for each in found if each.part is Part.TEST], plan.most_test),
        )
        for domain, found in sentences.items()
    }
