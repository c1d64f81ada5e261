"""The parameters of a training: plain data without torch, so that the API can check a request for one.

`TrainConfig` has every hyperparameter of an adapter's training, `TrainingPlan` is a fine-tuning job as the catalog
keeps it, and `config_like` and `config_from_start` derive a config from an existing adapter.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from hmi.adapters import Activation, Adapter, AdapterKind, Bottleneck, Head, Lora, Pooling, Transform
from hmi.errors import InvalidInput
from hmi.spec import HPLMSpec, MissPolicy, Placement, Site, TaskKind
from hmi.training.data import FileFormat

_LEAST = {"rank": 1, "epochs": 1, "batch_size": 1, "max_tokens": 3, "patience": 1, "lowest_layer": 0}


def require_numbers(
    config: object, least: Mapping[str, int], *, positive: Sequence[str] = (), shares: Sequence[str] = ()
) -> None:
    """Raises `InvalidInput`, whose `param` names the field, for a number out of range.

    `least` bounds fields from below, `positive` ones are finite and above 0, `shares` from 0 to 1.
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

    Raises `InvalidInput` whose `param` names the field.
    """

    kind: AdapterKind = AdapterKind.BOTTLENECK
    rank: int = 48  # of every LoRA pair or bottleneck
    epochs: int = 4  # at most; with a dev set, training may stop earlier and keeps its best epoch
    batch_size: int = 32
    learning_rate: float = 3e-3  # peak of the schedule. The default suits every kind and rank that was tried.
    weight_decay: float = 0.01
    lowest_layer: int = 0  # adapters sit on this layer and above, but never on layers that are looked up
    # Under which the model will be served. For `backoff` each text gets the n-grams of a tree built from all other
    # texts; the model's answers on whole windows are no worse for it.
    miss_policy: MissPolicy = MissPolicy.EXACT
    sites: tuple[Site, ...] = (Site.Q, Site.V, Site.FC1, Site.FC2)  # linear layers with a LoRA pair
    # Of bottlenecks: after the feed-forward (Pfeiffer et al., 2021), or at both places.
    placements: tuple[Placement, ...] = (Placement.OUTPUT,)
    # Bottlenecks read the normalised sum of state and residual (Pfeiffer et al.), not the state (Houlsby et al., 2019).
    before_norm: bool = True
    activation: Activation = Activation.RELU  # of bottlenecks
    pooling: Pooling = Pooling.MEAN  # how the states of a text become the vector that the head reads
    max_tokens: int = 128  # longer texts are cut, special tokens included
    patience: int = 2  # training ends after so many epochs without a better one
    dev_share: float = 0.1  # of the examples, if no dev set is given; 0 trains on all of them to the last epoch
    temperature: float = 0.05  # of the contrastive loss, for embeddings
    seed: int = 0  # with the same text, machine and number of threads it gives the same weights
    device: str = "cpu"  # see `hmi.devices`
    dtype: str = "auto"  # of the frozen base model and the activations; the trained weights are float32

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


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The part of a job that its worker needs to train."""

    task: TaskKind
    training_form: FileFormat
    validation_form: FileFormat | None  # None without a validation file
    config: TrainConfig  # the worker replaces `device` and `dtype` by its own
    start: str | None = None  # digest of the adapter artifact that training begins with

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task.value,
            "training_form": self.training_form.value,
            "validation_form": None if self.validation_form is None else self.validation_form.value,
            "config": self.config.to_json(),
            "start": self.start,
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """The inverse of `to_json`. Raises `KeyError`, `ValueError` or `TypeError`."""
        form = raw["validation_form"]
        return cls(
            TaskKind(raw["task"]),
            FileFormat(raw["training_form"]),
            None if form is None else FileFormat(form),
            TrainConfig.from_json(raw["config"]),
            raw.get("start"),  # absent in jobs of earlier versions
        )


def config_like(
    adapter: Adapter, head: Head, spec: HPLMSpec, labels: Collection[str], how: TrainConfig
) -> tuple[TrainConfig, tuple[str, ...]]:
    """`how` with the adapter's kind, size and places, and in words how a retrained adapter will differ from it.

    `head` and `spec` are those of the adapter, `labels` those of the text to train on.
    """
    places = [*adapter.lora, *adapter.bottleneck]
    parts: tuple[Lora | Bottleneck, ...] = (*adapter.lora.values(), *adapter.bottleneck.values())
    ranks = sorted({part.rank for part in parts})
    differs = []
    if len(ranks) > 1:
        listed = f"{', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"
        differs.append(f"its ranks are {listed}, and a retrained one has the largest everywhere")
    config = _shaped_like(adapter, how)
    each = len(config.sites) if adapter.kind is AdapterKind.LORA else len(config.placements)
    if places and len(places) < each * (spec.layers - config.lowest_layer):
        differs.append(
            f"it does not have the same in every layer, and a retrained one does, in all from {config.lowest_layer}"
        )
    if head.transform is not Transform.NONE:
        differs.append("its head has a layer of its own before the labels, and a retrained one's is linear")
    if missing := len(set(head.labels) - set(labels)):
        some = "one of its labels is" if missing == 1 else f"{missing} of its labels are"
        differs.append(f"{some} nowhere in the text, and a retrained one will not know it")
    return config, tuple(differs)


def config_from_start(adapter: Adapter, how: TrainConfig) -> TrainConfig:
    """`how` for a training that starts from the adapter: its kind, size and places, with fewer epochs and a lower rate.

    So four domains' full models lost least accuracy when their lower layers were replaced by the lookup; at the usual
    rate they lost what the adapters on the lower layers had contributed (`python -m benchmarks.accuracy`).
    """
    return dataclasses.replace(_shaped_like(adapter, how), epochs=2, learning_rate=1e-3)


def _shaped_like(adapter: Adapter, how: TrainConfig) -> TrainConfig:
    head = adapter.head
    layers = {layer for layer, _ in [*adapter.lora, *adapter.bottleneck]}
    config = dataclasses.replace(
        how,
        kind=adapter.kind,
        rank=max(1, adapter.rank),
        lowest_layer=min(layers, default=0),
        pooling=how.pooling if head is None or head.pooling is Pooling.TOKENS else head.pooling,
    )
    if adapter.kind is AdapterKind.LORA:
        sites = {site for _, site in adapter.lora}
        config = dataclasses.replace(config, sites=tuple(site for site in Site if site in sites))
    if adapter.kind is AdapterKind.BOTTLENECK:
        placed = {place for _, place in adapter.bottleneck}
        config = dataclasses.replace(
            config,
            placements=tuple(place for place in Placement if place in placed),
            before_norm=adapter.adapter_before_norm,
            activation=adapter.activation,
        )
    return config
