"""A tenant's adapter and head from labelled text: only what lies above the lower layers is trained.

The lower layers' output is the one that serving looks up, rounding and the domain's delta included, so a model is
trained on exactly what it will see. It is computed once for each distinct window and needs no gradient.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hmi.adapters.adapter import Adapter, AdapterKind, Pooling
from hmi.adapters.delta import check_delta
from hmi.adapters.maths import SingleAdapter
from hmi.engine.config import resolve_device, resolve_dtype
from hmi.errors import InvalidInput
from hmi.models.bert import HBert
from hmi.models.loader import load_hplm, load_tokenizer
from hmi.spec import Placement, Site
from hmi.training.examples import Example, labels_of, majority_label
from hmi.training.schedule import LARGEST_GRADIENT, batches_of_like_length, share_of_peak
from hmi.training.states import LowerStates, encode
from hmi.training.trainable import TrainableAdapter

__all__ = ["OnStep", "TrainConfig", "TrainReport", "TrainedAdapter", "train_adapter"]

OnStep = Callable[[int, int], None]

_EVALUATION_BATCH = 64


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How an adapter is trained. The defaults suit hundreds to a few thousand sentences.

    Attributes:
        rank: Of every LoRA pair or bottleneck.
        learning_rate: Peak of the schedule. The default suits every kind and rank that was tried.
        sites: The linear layers that get a LoRA pair, in every upper layer.
        placements: Where bottlenecks go: after the feed-forward (Pfeiffer et al., 2021), or at both places.
        max_tokens: Longer texts are cut, special tokens included.
        seed: Same seed, same text, same machine, same number of threads: same weights.
        device, dtype: As in `hmi.engine.config.EngineConfig`. The dtype is that of the frozen base model and the
            activations; the trained weights are float32 always.
    """

    kind: AdapterKind = AdapterKind.BOTTLENECK
    rank: int = 48
    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    sites: tuple[Site, ...] = (Site.Q, Site.V, Site.FC1, Site.FC2)
    placements: tuple[Placement, ...] = (Placement.OUTPUT,)
    pooling: Pooling = Pooling.MEAN
    max_tokens: int = 128
    seed: int = 0
    device: str = "cpu"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        for name in ("rank", "epochs", "batch_size", "max_tokens"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be at least 1, not {getattr(self, name)}", param=name)


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What came of a training.

    Attributes:
        dev_accuracy: Share of right answers on the dev part, 0..1; None without one.
        majority: What always answering the most frequent training label gives, on the dev part where
            there is one, else on the training part.
        losses: Mean cross entropy of each epoch.
        seconds: From loading the base model to the end.
    """

    examples: int
    dev_examples: int
    labels: tuple[str, ...]
    dev_accuracy: float | None
    majority: float
    losses: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    adapter: Adapter
    report: TrainReport


def train_adapter(
    folder: Path,
    examples: Sequence[Example],
    config: TrainConfig,
    dev: Sequence[Example] = (),
    *,
    delta: Adapter | None = None,
    on_step: OnStep = lambda done, steps: None,
) -> TrainedAdapter:
    """Train an adapter and a classification head for the base artifact in `folder`.

    Args:
        delta: Of the domain that the model will be served in, so that it learns from that domain's rows.
        on_step: Told how many of how many steps are done; what it raises ends the training.

    Raises:
        InvalidInput: Text or labels that cannot be trained on.
        AdapterRefused: A delta that is none of this base's.
        Corrupt: A damaged base.
    """
    started = time.monotonic()
    labels = labels_of(examples)
    if unknown := sorted({each.label for each in dev} - set(labels)):
        raise InvalidInput(f"the dev part has a label that the training part lacks: {unknown[0]!r}")
    device = resolve_device(config.device)
    model = load_hplm(folder, device, resolve_dtype(config.dtype, device))
    max_tokens = min(config.max_tokens, model.spec.max_positions)
    tokenizer = load_tokenizer(folder)
    if delta is not None:
        check_delta(delta, model.spec)
    lower = None if delta is None else SingleAdapter.of(delta, device, model.dtype)

    def prepare(part: Sequence[Example]) -> tuple[LowerStates, Tensor]:
        sequences = encode(tokenizer, [each.text for each in part], max_tokens)
        targets = torch.tensor([labels.index(each.label) for each in part], device=model.device)
        return LowerStates(model, sequences, lower), targets

    generator = torch.Generator().manual_seed(config.seed)
    trainable = TrainableAdapter(
        model.spec,
        labels,
        kind=config.kind,
        rank=config.rank,
        sites=config.sites,
        placements=config.placements,
        pooling=config.pooling,
        generator=generator,
    ).to(model.device)
    losses = _fit(model, trainable, *prepare(examples), config, generator, on_step)
    usual = majority_label(examples)
    judged = dev or examples
    return TrainedAdapter(
        adapter=trainable.export(),
        report=TrainReport(
            examples=len(examples),
            dev_examples=len(dev),
            labels=labels,
            dev_accuracy=_accuracy(model, trainable, *prepare(dev)) if dev else None,
            majority=sum(each.label == usual for each in judged) / len(judged),
            losses=losses,
            seconds=time.monotonic() - started,
        ),
    )


def _fit(
    model: HBert,
    trainable: TrainableAdapter,
    states: LowerStates,
    targets: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
    on_step: OnStep,
) -> tuple[float, ...]:
    optimizer = torch.optim.AdamW(trainable.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    steps = config.epochs * math.ceil(len(states) / config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share_of_peak(step, steps))
    losses = []
    done = 0
    for _ in range(config.epochs):
        total = 0.0
        for chosen in batches_of_like_length(states.lengths, config.batch_size, generator):
            hidden, mask = states.batch(chosen)
            upper = model.upper(hidden, mask, trainable.maths(model.dtype))
            loss = F.cross_entropy(trainable.logits(upper, mask), targets[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(trainable.parameters(), LARGEST_GRADIENT)
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(chosen)
            done += 1
            on_step(done, steps)
        losses.append(total / len(states))
    return tuple(losses)


@torch.no_grad()
def _accuracy(model: HBert, trainable: TrainableAdapter, states: LowerStates, targets: Tensor) -> float:
    order = np.argsort(states.lengths, kind="stable").tolist()
    right = 0
    for start in range(0, len(order), _EVALUATION_BATCH):
        chosen = order[start : start + _EVALUATION_BATCH]
        hidden, mask = states.batch(chosen)
        logits = trainable.logits(model.upper(hidden, mask, trainable.maths(model.dtype)), mask)
        right += int((logits.argmax(1) == targets[chosen]).sum())
    return right / len(order)
