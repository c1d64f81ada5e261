"""Distillation: an hPLM's layers are trained until its states agree with the pretrained model's.

The loss is the relative error of the states after the lookup and after every upper layer, against those of the
unchanged model on the same text (Jiao et al., TinyBERT, 2020; Wang et al., SkipBERT, 2022). For a decoder the error is
each token's own, and the divergence of its next-token distribution is added (Hinton et al., 2015). In a share of the
texts windows lose neighbours, so that rows of bigrams and unigrams can replace trigrams that a tree lacks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recomputed

from hmi.models.families import HPLM, HGpt
from hmi.spec import Family
from hmi.training.distill.teacher import Teacher
from hmi.training.loop import Checkpoint, Trainer
from hmi.training.lower import WindowBatch, states_error
from hmi.training.plan import require_numbers
from hmi.training.reports import OnProgress, TrainProgress

_BLOCK = 16  # batches that are drawn at once, so that each can hold texts of similar length
_CHECKPOINT_SECONDS = 60.0
_BETAS = (0.9, 0.98)
_LOGITS = 512  # tokens whose logits are held at once
_SHOWN = 50  # steps whose mean loss is reported
_BLOCK_STREAM = 1  # of random numbers, beside those of single steps

Sequences = Sequence[NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class DistillConfig:
    """How an hPLM is distilled."""

    steps: int = 6000  # of the optimizer; 0 for no distillation
    batch_size: int = 32  # texts in one step
    learning_rate: float = 5e-4  # peak of the schedule
    thinned: float = 0.4  # share of the texts whose windows lose neighbours, for the miss policy `backoff`
    max_tokens: int = 128  # longer texts are cut, special tokens included
    seed: int = 0  # with the same text, machine and number of threads it gives the same weights
    device: str = "cpu"  # see `hmi.devices`
    dtype: str = "auto"  # of the computation; the trained weights are float32

    def __post_init__(self) -> None:
        require_numbers(
            self, {"steps": 0, "batch_size": 1, "max_tokens": 1}, positive=("learning_rate",), shares=("thinned",)
        )


def default_distill_config(family: Family) -> DistillConfig:
    """The best one in `benchmarks.recipes` for encoders and in `benchmarks.perplexity` for decoders, whose windows stay
    whole because missing rows are estimated."""
    return DistillConfig(learning_rate=2e-4, thinned=0.0) if family.decodes else DistillConfig()


class Student(nn.Module):
    """An hPLM in training: which of its weights are trained, and its loss on a batch."""

    def __init__(self, model: HPLM) -> None:
        super().__init__()
        self.model = model

    def is_trained(self, name: str) -> bool:
        """All parameters but the embeddings, which the other layers depend on, and those that no state depends on."""
        return not name.startswith(("embeddings.", "pooler.", "head"))

    def states(self, batch: WindowBatch) -> list[Tensor]:
        """After the lookup, and after each upper layer: `[B, T, H]` each."""
        rows = self.model.lower(batch.windows)  # [n, H]
        return list(self.model.upper_states(self.model.merge(rows[batch.index]), batch.mask))

    def forward(self, batch: WindowBatch, teacher: Teacher) -> Tensor:
        ours, full = self.states(batch), teacher.states(batch)
        loss = states_error(ours, full, batch.mask, each_token=self.model.spec.family.decodes)
        if isinstance(self.model, HGpt) and isinstance(teacher.model, HGpt):
            loss = loss + _divergence(self.model, ours[-1][batch.mask], teacher.model, full[-1][batch.mask])
        return loss


def _divergence(model: HGpt, ours: Tensor, original: HGpt, theirs: Tensor) -> Tensor:
    """KL(original's next token || ours), mean over tokens; of the last layers' states `[tokens, H]`."""
    heads = model.head_weight, original.head_weight  # read now: gradients are computed after the call
    parts = [
        # Logits are recomputed for the gradient: those of a whole batch would take gigabytes.
        recomputed(_divergence_sum, heads, some, others, use_reentrant=False)
        for some, others in zip(torch.split(ours, _LOGITS), torch.split(theirs, _LOGITS), strict=True)
    ]
    return torch.stack(parts).sum() / len(ours)


def _divergence_sum(heads: tuple[Tensor, Tensor], ours: Tensor, theirs: Tensor) -> Tensor:
    with torch.no_grad():
        target = F.linear(theirs, heads[1]).float().log_softmax(-1)  # [n, vocabulary]
    return F.kl_div(F.linear(ours, heads[0]).float().log_softmax(-1), target, reduction="sum", log_target=True)


def distill(
    student: Student,
    teacher: Teacher,
    corpora: Sequence[Sequences],
    config: DistillConfig,
    *,
    checkpoint: Path | None = None,
    origin: str = "",
    on_progress: OnProgress = lambda progress: None,
) -> tuple[float, ...]:
    """Train the student's model (float32; changed in place) to agree with `teacher`; both run in the teacher's dtype.

    Args:
        corpora: Token ids of texts. Every corpus gives an equal share of each batch.
        checkpoint: File that keeps the state; the same call resumes from it and ends with the same weights.
        origin: Identifies models and text: the checkpoint of another origin or config is ignored.

    Returns the loss, means over each tenth of the steps.
    """
    model, dtype = student.model, teacher.model.dtype
    trained = {name: each for name, each in model.named_parameters() if student.is_trained(name)}
    for parameter in trained.values():
        parameter.requires_grad_(True)
    frozen = {name: each.to(dtype) for name, each in model.named_parameters() if name not in trained}

    def loss_of(step: int) -> Tensor:
        batch = WindowBatch.of(
            draw_batch(corpora, step, config),
            model.device,
            looks_back=model.spec.family.decodes,
            thinned=config.thinned,
            rng=np.random.default_rng([config.seed, step]),
        )
        weights = frozen | {name: each.to(dtype) for name, each in trained.items()}
        prefixed = {f"model.{name}": tensor for name, tensor in weights.items()}
        loss: Tensor = torch.func.functional_call(student, prefixed, (batch, teacher))
        return loss

    def report(progress: TrainProgress) -> None:
        on_progress(dataclasses.replace(progress, loss=trainer.state.mean_loss(_SHOWN)))

    weights = list(trained.values())
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=0.0, betas=_BETAS, fused=True)
    saved = Checkpoint(checkpoint, f"{origin} {dtype} {config!r}", _CHECKPOINT_SECONDS) if checkpoint else None
    trainer = Trainer(weights, optimizer, config.steps, report, saved)
    trainer.resume()
    if trainer.run(loss_of):  # what follows may fail, and must not repeat the steps
        trainer.save()
    return trainer.state.loss_curve()


def draw_batch(corpora: Sequence[Sequences], step: int, config: DistillConfig) -> list[NDArray[np.int64]]:
    """The texts of a step, of similar length; they depend on the arguments alone. Every corpus gives an equal share of
    each block of batches."""
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
