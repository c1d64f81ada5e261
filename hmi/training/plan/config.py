"""The hyperparameters of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from hmi.adapters import Activation, AdapterKind, Pooling
from hmi.errors import InvalidInput
from hmi.spec import MissPolicy, Placement, Site

_LEAST = {"rank": 1, "epochs": 1, "batch_size": 1, "max_tokens": 3, "patience": 1, "lowest_layer": 0}


def require_numbers(
    config: object, least: Mapping[str, int], *, positive: Sequence[str] = (), shares: Sequence[str] = ()
) -> None:
    """Raises `InvalidInput`, whose `param` names the field, for a number out of range.

    Args:
        least: Fields with a lower bound.
        positive: Fields that are finite numbers above 0.
        shares: Fields from 0 to 1.
    """
    for name, bound in least.items():
        if getattr(config, name) < bound:
            raise InvalidInput(f"{name} must be at least {bound}, not {getattr(config, name)}", param=name)
    for name in positive:
        if not 0 < getattr(config, name) < math.inf:
            raise InvalidInput(f"{name} must be a number above 0, not {getattr(config, name)}", param=name)
    for name in shares:
        if not 0 <= getattr(config, name) <= 1:
            raise InvalidInput(f"{name} must be a share from 0 to 1, not {getattr(config, name)}", param=name)


def default_rank(kind: AdapterKind) -> int:
    """16 for LoRA, which has a pair at every linear layer; 48 for bottlenecks."""
    return 16 if kind is AdapterKind.LORA else 48


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How an adapter is trained. The defaults suit hundreds to a few thousand sentences.

    Attributes:
        rank: Of every LoRA pair or bottleneck.
        epochs: At most; with a dev set, training may stop earlier and keeps its best epoch.
        learning_rate: Peak of the schedule. The default suits every kind and rank that was tried.
        lowest_layer: Adapters sit on this layer and above, but never on layers that are looked up.
        miss_policy: Under which the model will be served. For `backoff` each text gets the n-grams of a tree built from
            all other texts; the model's answers on whole windows are no worse for it.
        sites: The linear layers that get a LoRA pair, in every upper layer.
        placements: Of bottlenecks: after the feed-forward (Pfeiffer et al., 2021), or at both places.
        before_norm: Bottlenecks read the normalised sum of state and residual (Pfeiffer et al.), not the state alone
            (Houlsby et al., 2019).
        activation: Of bottlenecks.
        pooling: How the states of a text become the vector that the head reads.
        max_tokens: Longer texts are cut, special tokens included.
        patience: Training ends after so many epochs without a better one.
        dev_share: Of the examples, for the dev set if none is given; 0 trains on all of them to the last epoch.
        temperature: Of the contrastive loss, for embeddings.
        seed: The same seed, text, machine and number of threads give the same weights.
        device, dtype: See `hmi.devices`. The dtype is that of the frozen base model and the activations;
            the trained weights are float32.

    Raises `InvalidInput` whose `param` names the field.
    """

    kind: AdapterKind = AdapterKind.BOTTLENECK
    rank: int = 48
    epochs: int = 4
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    lowest_layer: int = 0
    miss_policy: MissPolicy = MissPolicy.EXACT
    sites: tuple[Site, ...] = (Site.Q, Site.V, Site.FC1, Site.FC2)
    placements: tuple[Placement, ...] = (Placement.OUTPUT,)
    before_norm: bool = True
    activation: Activation = Activation.RELU
    pooling: Pooling = Pooling.MEAN
    max_tokens: int = 128
    patience: int = 2
    dev_share: float = 0.1
    temperature: float = 0.05
    seed: int = 0
    device: str = "cpu"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        require_numbers(self, _LEAST, positive=("learning_rate", "temperature"))
        if not 0 <= self.weight_decay < math.inf:
            raise InvalidInput(f"weight_decay must be a number from 0, not {self.weight_decay}", param="weight_decay")
        if not 0 <= self.dev_share <= 0.5:
            raise InvalidInput(f"dev_share must lie between 0 and 0.5, not {self.dev_share}", param="dev_share")
        if self.pooling is Pooling.TOKENS:
            raise InvalidInput("the examples decide whether words are labelled, not the pooling", param="pooling")
        if self.kind is AdapterKind.LORA and not self.sites:
            raise InvalidInput("a LoRA needs at least one linear layer to sit on", param="sites")
        if self.kind is AdapterKind.BOTTLENECK and not self.placements:
            raise InvalidInput("a bottleneck needs at least one place to stand at", param="placements")

    def to_json(self) -> dict[str, Any]:
        """Every field, as JSON values."""
        return {
            name: [str(each) for each in value] if isinstance(value, tuple) else value
            for name in self.__slots__
            for value in [getattr(self, name)]
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """The inverse of `to_json`. Raises `TypeError`, `ValueError` or `KeyError`."""
        sites, placements = tuple(map(Site, raw["sites"])), tuple(map(Placement, raw["placements"]))
        kind, pooling = AdapterKind(raw["kind"]), Pooling(raw["pooling"])
        policy, activation = MissPolicy(raw["miss_policy"]), Activation(raw["activation"])
        typed = {"kind": kind, "pooling": pooling, "sites": sites, "placements": placements, "miss_policy": policy}
        return cls(**raw | typed | {"activation": activation})
