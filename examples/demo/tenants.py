"""Who takes part in the demonstration: the tenants, what each of them runs, and its own part of the text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from examples.demo.text import Part, Sentence

__all__ = ["BASES", "DOMAINS", "FULL", "QUICK", "DemoTenant", "Portion", "Scale", "portions", "thinned"]

LOOKED_UP, EXACT_HOSTING = "minilm-k3", "minilm-k0"
BASES: Mapping[str, int] = {LOOKED_UP: 3, EXACT_HOSTING: 0}  # name: layers that are looked up

# Each domain and its parent; a parent comes before its children.
DOMAINS: Mapping[str, str] = {
    "reviews": "general",
    "movies": "reviews",
    "products": "reviews",
    "news": "general",
    "tweets": "general",
}


@dataclass(frozen=True, slots=True)
class DemoTenant:
    """An invented company with one sentiment model. `kind` is `bottleneck` or `lora`."""

    name: str
    domain: str
    kind: str
    rank: int
    base: str = LOOKED_UP

    @property
    def model(self) -> str:
        return f"{self.name}/sentiment"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything a run takes.

    Attributes:
        most_training, most_test: Sentences of one tenant, at most.
        most_counted: Training sentences of one domain that the first knowledge tree is made from, at most.
    """

    tenants: tuple[DemoTenant, ...]
    most_training: int
    most_test: int
    most_counted: int
    epochs: int
    batch_size: int


FULL = Scale(
    tenants=(
        DemoTenant("lantern-film", "movies", "bottleneck", 48),
        DemoTenant("northlight", "movies", "lora", 8),
        DemoTenant("popcornly", "movies", "bottleneck", 16),
        DemoTenant("reelhouse", "movies", "lora", 16, EXACT_HOSTING),
        DemoTenant("brightcart", "products", "bottleneck", 48),
        DemoTenant("gadgetry", "products", "lora", 16),
        DemoTenant("wren-sons", "products", "lora", 4),
        DemoTenant("civic-ledger", "news", "bottleneck", 48),
        DemoTenant("meridian", "news", "lora", 8),
        DemoTenant("tidewater", "news", "bottleneck", 16, EXACT_HOSTING),
        DemoTenant("chirpwatch", "tweets", "bottleneck", 16),
        DemoTenant("pulseboard", "tweets", "lora", 4),
        DemoTenant("skylark", "tweets", "lora", 16),
        DemoTenant("treetop-fm", "tweets", "bottleneck", 48, EXACT_HOSTING),
    ),
    most_training=1000,
    most_test=1000,
    most_counted=10_000,
    epochs=3,
    batch_size=32,
)

QUICK = Scale(
    tenants=(
        DemoTenant("lantern-film", "movies", "bottleneck", 16),
        DemoTenant("brightcart", "products", "lora", 8),
        DemoTenant("civic-ledger", "news", "lora", 4),
        DemoTenant("chirpwatch", "tweets", "bottleneck", 48),
        DemoTenant("treetop-fm", "tweets", "lora", 16, EXACT_HOSTING),
    ),
    most_training=256,
    most_test=48,
    most_counted=500,
    epochs=3,
    batch_size=16,
)


@dataclass(frozen=True, slots=True)
class Portion:
    """One tenant's own sentences; no other tenant has any of them."""

    training: tuple[Sentence, ...]
    test: tuple[Sentence, ...]


def portions(sentences: Mapping[str, Sequence[Sentence]], scale: Scale) -> dict[str, Portion]:
    """By tenant's name: the sentences of each domain dealt out in turn to the tenants of that domain.

    In turn, because the files are sorted by what the sentences are about.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for tenant in scale.tenants:
        members[tenant.domain].append(tenant.name)
    dealt = {}
    for domain, names in members.items():
        parts = {part: [each for each in sentences[domain] if each.part is part] for part in Part}
        for place, name in enumerate(names):
            training = parts[Part.TRAIN][place :: len(names)]
            test = parts[Part.TEST][place :: len(names)]
            dealt[name] = Portion(thinned(training, scale.most_training), thinned(test, scale.most_test))
    return dealt


def thinned(sentences: Sequence[Sentence], most: int) -> tuple[Sentence, ...]:
    """At most `most` of them, evenly from beginning to end."""
    if len(sentences) <= most:
        return tuple(sentences)
    return tuple(sentences[len(sentences) * number // most] for number in range(most))
