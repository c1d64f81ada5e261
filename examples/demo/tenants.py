"""The tenants of the demonstration, the adapter of each, and its own part of the text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from examples.data import Part, Sentence, thinned

__all__ = ["BASES", "EXACT", "FULL", "LOOKED_UP", "QUICK", "DemoTenant", "Portion", "Scale", "portions"]

LOOKED_UP, EXACT = "minilm-k3", "minilm-k0"
BASES: Mapping[str, int] = {LOOKED_UP: 3, EXACT: 0}  # name: layers that are looked up


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
    """The size of a run.

    Attributes:
        most_training, most_test: Most sentences of one tenant.
        most_counted: Most training sentences of one domain that are counted for the first knowledge tree.
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
        DemoTenant("reelhouse", "movies", "lora", 16, EXACT),
        DemoTenant("brightcart", "products", "lora", 16),
        DemoTenant("wren-sons", "products", "bottleneck", 16),
        DemoTenant("civic-ledger", "news", "lora", 8),
        DemoTenant("tidewater", "news", "bottleneck", 16, EXACT),
        DemoTenant("chirpwatch", "tweets", "bottleneck", 48),
        DemoTenant("pulseboard", "tweets", "lora", 4),
    ),
    most_training=400,
    most_test=200,
    most_counted=750,
    epochs=3,
    batch_size=32,
)

QUICK = Scale(
    tenants=(
        DemoTenant("lantern-film", "movies", "bottleneck", 16),
        DemoTenant("brightcart", "products", "lora", 8),
        DemoTenant("civic-ledger", "news", "lora", 4),
        DemoTenant("chirpwatch", "tweets", "bottleneck", 48),
        DemoTenant("treetop-fm", "tweets", "lora", 16, EXACT),
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
    """Deal the sentences of each domain to its tenants, by tenant's name.

    The tenants take turns, since the files are sorted by topic.
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
