"""Distillation: an hPLM's layers are trained until its states agree with the pretrained model's.

The lower layers learn to say what a window of three tokens tells, the upper ones to make the rest of the sentence of
that. Loss is the relative error of the states after the lookup and after every upper layer, against those of the
unchanged model on the same text (Jiao et al., TinyBERT, 2020; Wang et al., SkipBERT, 2022); of a decoder, each
token's by itself, and with it the divergence of what it says comes next (Hinton et al., Distilling the Knowledge in a
Neural Network, 2015). In a share of the texts windows lose neighbours, so that rows of bigrams and unigrams can stand
in for trigrams that a tree lacks.

Of a batch, each distinct window is computed once, and the last lower layer for its middle token alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as computed_anew

from hmi.errors import InvalidInput
from hmi.models.families import HPLM, HGpt
from hmi.spec import Family
from hmi.training.distill.state import DistillState
from hmi.training.distill.teacher import Teacher
from hmi.training.loop import MAX_GRADIENT_NORM, learning_rate_factor
from hmi.training.lower import WindowBatch, states_error
from hmi.training.reports import TrainProgress

__all__ = ["DistillConfig", "Student", "default_distill_config", "distill", "drawn"]

_BLOCK = 16  # batches that are drawn at once, so that each can be of texts of like length
_CHECKPOINT_SECONDS = 60.0
_BETAS = (0.9, 0.98)
_LOGITS = 512  # tokens whose logits are held at once
_SHOWN = 50  # steps whose mean loss is shown
_BLOCK_STREAM = 1  # of random numbers, beside those of single steps

Sequences = Sequence[NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class DistillConfig:
    """How an hPLM is distilled.

    Attributes:
        steps: Of the optimiser; text is passed over as often as that takes. 0: not at all.
        batch_size: Texts in one step.
        learning_rate: Peak of the schedule.
        thinned: Share of the texts whose windows lose neighbours, for the miss policy `backoff`.
        max_tokens: Longer texts are cut, special tokens included.
        seed: Same seed, same text, same machine, same number of threads: same weights.
        device, dtype: As in `hmi.engine.config.EngineConfig`. The dtype is that of the computation; the trained
            weights are float32 always.
    """

    steps: int = 6000
    batch_size: int = 32
    learning_rate: float = 5e-4
    thinned: float = 0.4
    max_tokens: int = 128
    seed: int = 0
    device: str = "cpu"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InvalidInput(f"steps must be at least 0, not {self.steps}", param="steps")
        for name in ("batch_size", "max_tokens"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be at least 1, not {getattr(self, name)}", param=name)
        if not 0 <= self.thinned <= 1:
            raise InvalidInput(f"thinned must be a share from 0 to 1, not {self.thinned}", param="thinned")
        if not 0 < self.learning_rate < math.inf:
            raise InvalidInput(
                f"learning_rate must be a number above 0, not {self.learning_rate}", param="learning_rate"
            )


def default_distill_config(family: Family) -> DistillConfig:
    """What was found best: `benchmarks.recipes` for encoders, `benchmarks.perplexity` for decoders, whose windows stay
    whole, for what stands in for rows is estimated."""
    return DistillConfig(learning_rate=2e-4, thinned=0.0) if family.decodes else DistillConfig()


class Student(nn.Module):
    """An hPLM in training: which of its weights are trained, and what a batch costs it.

    Other recipes than this one are tried as subclasses (`benchmarks.recipes`).
    """

    def __init__(self, model: HPLM) -> None:
        super().__init__()
        self.model = model

    def is_trained(self, name: str) -> bool:
        """All but the embeddings, which other layers' knowledge hangs on, and what no state depends on.

        Args:
            name: Of a parameter of the model.
        """
        return not name.startswith(("embeddings.", "pooler.", "head"))

    def states(self, batch: WindowBatch) -> list[Tensor]:
        """After the lookup, and after each upper layer: `[B, T, H]` each."""
        rows = self.model.lower(batch.windows)  # [n, H]
        return list(self.model.upper_states(self.model.merge(rows[batch.index]), batch.mask))

    def forward(self, batch: WindowBatch, teacher: Teacher) -> Tensor:
        """The loss."""
        ours, wanted = self.states(batch), teacher.states(batch)
        loss = states_error(ours, wanted, batch.mask, each_token=self.model.spec.family.decodes)
        if isinstance(self.model, HGpt) and isinstance(teacher.model, HGpt):
            loss = loss + _divergence(self.model, ours[-1][batch.mask], teacher.model, wanted[-1][batch.mask])
        return loss


def _divergence(model: HGpt, ours: Tensor, original: HGpt, wanted: Tensor) -> Tensor:
    """KL(original's next token || ours), the mean over tokens; of the last layers' states `[tokens, H]`."""
    heads = model.head_weight, original.head_weight  # as they are now: gradients are computed after the call
    parts = [
        # Logits are computed anew for the gradient: those of a whole batch would take gigabytes.
        computed_anew(_divergence_of_some, heads, some, others, use_reentrant=False)
        for some, others in zip(torch.split(ours, _LOGITS), torch.split(wanted, _LOGITS), strict=True)
    ]
    return torch.stack(parts).sum() / len(ours)


def _divergence_of_some(heads: tuple[Tensor, Tensor], ours: Tensor, wanted: Tensor) -> Tensor:
    with torch.no_grad():
        target = F.linear(wanted, heads[1]).float().log_softmax(-1)
    return F.kl_div(F.linear(ours, heads[0]).float().log_softmax(-1), target, reduction="sum", log_target=True)


def distill(
    student: Student,
    teacher: Teacher,
    corpora: Sequence[Sequences],
    config: DistillConfig,
    *,
    checkpoint: Path | None = None,
    origin: str = "",
    on_progress: Callable[[TrainProgress], None] = lambda progress: None,
) -> tuple[float, ...]:
    """Train the student's model (float32; changed in place) to agree with `teacher`, in whose dtype both run.

    Args:
        corpora: Token ids of texts. Every corpus gives an equal share of each batch, however large it is.
        checkpoint: File to keep how far it is, now and then; a run that finds its own there goes on from it, to the
            same weights.
        origin: Of models and text, whatever tells them from others: a checkpoint of another origin or config is
            not taken up.
        on_progress: Told after every step; what it raises ends the training, which a later run can go on with.

    Returns:
        The loss, means over each tenth of the steps.
    """
    model = student.model
    trained = _trained(student)
    optimizer = torch.optim.AdamW(trained.values(), lr=config.learning_rate, weight_decay=0.0, betas=_BETAS, fused=True)
    kept = DistillState(checkpoint, f"{origin} {teacher.model.dtype} {config!r}") if checkpoint else None
    losses = kept.restore(trained, optimizer) if kept else []
    frozen = {name: each.to(teacher.model.dtype) for name, each in model.named_parameters() if name not in trained}
    first, began = len(losses), time.monotonic()
    saved = began
    for step in range(first, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(step, config.steps)
        rng = np.random.default_rng([config.seed, step])
        batch = WindowBatch.of(
            drawn(corpora, step, config),
            model.device,
            looks_back=model.spec.family.decodes,
            thinned=config.thinned,
            rng=rng,
        )
        weights = frozen | {name: each.to(teacher.model.dtype) for name, each in trained.items()}
        prefixed = {f"model.{name}": tensor for name, tensor in weights.items()}
        loss: Tensor = torch.func.functional_call(student, prefixed, (batch, teacher))
        if not math.isfinite(float(loss.detach())):  # before it reaches the weights, and the checkpoint
            raise InvalidInput(
                f"the loss of step {step + 1} is not finite; take a lower learning rate", param="learning_rate"
            )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained.values(), MAX_GRADIENT_NORM)
        optimizer.step()
        losses.append(float(loss.detach()))
        now, done = time.monotonic(), step + 1
        if kept and now - saved > _CHECKPOINT_SECONDS and done < config.steps:
            kept.save(trained, optimizer, losses)
            saved = now
        left = (now - began) / (done - first) * (config.steps - done)
        on_progress(TrainProgress(done, config.steps, float(np.mean(losses[-_SHOWN:])), left))
    if kept and first < config.steps:  # what comes after it may fail too
        kept.save(trained, optimizer, losses)
    return tuple(float(np.mean(part)) for part in np.array_split(losses, min(10, len(losses)))) if losses else ()


def drawn(corpora: Sequence[Sequences], step: int, config: DistillConfig) -> list[NDArray[np.int64]]:
    """The texts of a step, of like length; the same whenever it is asked. Every corpus gives an equal share of each
    block of batches."""
    block, place = divmod(step, _BLOCK)
    rng = np.random.default_rng([config.seed, _BLOCK_STREAM, block])
    count = _BLOCK * config.batch_size
    shares = np.diff(np.linspace(0, count, len(corpora) + 1).astype(int))
    some = [
        corpus[number]
        for corpus, share in zip(corpora, shares.tolist(), strict=True)
        for number in rng.integers(0, len(corpus), share).tolist()
    ]
    order = np.argsort([len(ids) for ids in some] + rng.random(count), kind="stable")
    first = int(rng.permutation(_BLOCK)[place]) * config.batch_size
    return [some[number] for number in order[first : first + config.batch_size]]


def _trained(student: Student) -> dict[str, nn.Parameter]:
    trained = {name: parameter for name, parameter in student.model.named_parameters() if student.is_trained(name)}
    for parameter in trained.values():
        parameter.requires_grad_(True)
    return trained
