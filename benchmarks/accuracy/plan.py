"""What a run of the benchmark takes: the text and its parts, the systems, the training budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from examples.data import Part, Sentence, thinned
from hmi.adapters import AdapterKind


class System(StrEnum):
    """What answers.

    The first three are the ordinary model: with adapters on all layers, with the same ones trained as long as
    `carried_*` are, and with adapters above k alone. The others look the lower k layers up in a tree of the domain's
    training text; a missing window is computed, or backs off to shorter n-grams. Their rows are the base's, or those of
    the domain's delta. An adapter is trained from scratch, or carried over from the ordinary model
    (`hmi train --start`).
    """

    FULL = "full"
    FULL_LONGER = "full_longer"
    UPPER = "upper"
    EXACT = "exact"
    BACKOFF = "backoff"
    DELTA_EXACT = "delta_exact"
    DELTA_BACKOFF = "delta_backoff"
    CARRIED_EXACT = "carried_exact"
    CARRIED_BACKOFF = "carried_backoff"

    @property
    def ordinary(self) -> bool:
        """All layers are computed, and the adapters are on all of them: k plays no part."""
        return self in (System.FULL, System.FULL_LONGER)

    @property
    def looks_up(self) -> bool:
        return not self.ordinary and self is not System.UPPER

    @property
    def has_delta(self) -> bool:
        return self.value.startswith(("delta", "carried"))

    @property
    def backs_off(self) -> bool:
        return self.value.endswith("backoff")

    @property
    def starts(self) -> bool:
        """From the full model's adapter."""
        return self is System.FULL_LONGER or self.value.startswith("carried")

    @property
    def learnt_as(self) -> System:
        """The system whose adapter it uses: one is trained for both miss policies, on backoff rows."""
        return System(self.value.replace("backoff", "exact"))


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything a run takes."""

    ks: tuple[int, ...]  # numbers of lower layers that are looked up
    seeds: int  # tenants of each domain, whose adapters are trained from different seeds
    kind: AdapterKind  # this and the next three: of every adapter of every system
    rank: int
    epochs: int
    learning_rate: float
    more_epochs: int  # of adapters that start from the full model's
    lower_rate: float  # learning rate of the same
    distil_steps: int  # of a base at a k that the package does not carry
    delta_steps: int  # of a domain's delta
    most_training: int  # sentences of each domain, at most
    most_test: int


FULL = Plan(
    ks=(1, 2, 3),
    seeds=3,
    kind=AdapterKind.BOTTLENECK,
    rank=48,
    epochs=4,
    learning_rate=3e-3,
    more_epochs=2,
    lower_rate=1e-3,
    distil_steps=3000,
    delta_steps=300,
    most_training=100_000,
    most_test=100_000,
)
QUICK = replace(
    FULL, ks=(3,), seeds=1, epochs=1, more_epochs=1, distil_steps=0, delta_steps=4, most_training=128, most_test=64
)


@dataclass(frozen=True, slots=True)
class DomainText:
    """Of one domain: `training` is learnt from, `asked` is what the systems are judged by."""

    training: tuple[Sentence, ...]
    asked: tuple[Sentence, ...]

    @property
    def truth(self) -> list[str]:
        return [each.label for each in self.asked]


def domain_texts(
    sentences: Mapping[str, Sequence[Sentence]], plan: Plan, judging: Part = Part.TEST
) -> dict[str, DomainText]:
    """By domain; evenly from beginning to end where there is more, for the files are sorted by subject."""
    return {
        domain: DomainText(
            thinned([each for each in found if each.part is Part.TRAIN], plan.most_training),
            thinned([each for each in found if each.part is judging], plan.most_test),
        )
        for domain, found in sentences.items()
    }
