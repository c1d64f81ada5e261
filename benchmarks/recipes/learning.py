"""From a training to figures: fit it in closed form, distill it, keep it in every requested form, evaluate it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.recipes.keeping import keep
from benchmarks.recipes.plan import Plan, Training, Variant
from benchmarks.recipes.students import Tried
from hmi.models.convert import convert_pretrained, pretrained_tensors
from hmi.models.families import load_hbert, load_tokenizer
from hmi.spec import HPLMSpec
from hmi.training.distill import (
    Calibration,
    DistillConfig,
    Fidelity,
    Moments,
    Teacher,
    compare_states,
    distill,
    fit_calibration,
    split_corpora,
)
from hmi.training.loop import run_parallel
from hmi.training.lower import WindowBatch

_JUDGED_AT_ONCE = 64
_THINNING_SEED = 1
_WINDOW = 3

Sequences = Sequence[NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Text:
    """Token ids: `seen` by corpus, to learn from, and what judges."""

    seen: Sequence[Sequences]
    judges: Sequences


@dataclass(frozen=True, slots=True)
class Costs:
    """What a recipe costs in serving, by arithmetic: multiply-adds of matrix products, and bytes of a row."""

    row_bytes: int  # of an n-gram in a table, beside its key: int8, and a float32 scale for each vector
    window: float  # multiply-adds of computing a row, over those of the ordinary model for a token
    token: float  # the same of a token whose row was looked up


@dataclass(frozen=True, slots=True)
class Result:
    whole: Fidelity  # of windows as they are
    thinned: Fidelity  # of windows as a tree leaves them that does not know the text
    costs: Costs
    difference_bytes: int  # of the difference from the pretrained model, as it is kept
    losses: tuple[float, ...]  # of distillation, means over each tenth of the steps
    seconds: float  # of fitting and distillation


def read_text(corpora: Sequence[Sequence[str]], source: Path, folder: Path, plan: Plan) -> Text:
    """Every recipe's text, divided as `hmi build base` divides it.

    `source` is converted into `folder`, for its tokenizer.
    """
    spec = convert_pretrained(source, folder)
    some = [corpus[:: plan.every] for corpus in corpora]
    return Text(
        *split_corpora(some, load_tokenizer(folder), min(DistillConfig().max_tokens, spec.max_positions), has_end=True)
    )


@dataclass(frozen=True, slots=True)
class Learner:
    source: Path  # the pretrained model's transformers folder
    folder: Path  # for conversions of it
    text: Text
    plan: Plan
    device: torch.device
    dtype: torch.dtype

    def measure(self, variants: Mapping[str, Variant], say: Callable[[str], None]) -> dict[str, Result]:
        """Measure the variants; trainings run side by side, and variants of one training share its weights.

        `say` receives a line for each variant that is done.
        """
        trainings: dict[Training, dict[str, Variant]] = {}
        for name, variant in variants.items():
            trainings.setdefault(variant.training, {})[name] = variant
        for k in {training.k for training in trainings}:
            convert_pretrained(self.source, self._base(k), k=k)

        def measure(training: Training, check: Callable[[], None]) -> dict[str, Result]:
            return self._measure(training, trainings[training], check)

        results: dict[str, Result] = {}
        for _, found in run_parallel(measure, list(trainings)):
            results |= found
            for name, each in found.items():
                say(f"{name}: error of the last layer {each.whole.upper:.3f}, {each.seconds:.0f} s of training")
        return results

    def _measure(
        self, training: Training, variants: Mapping[str, Variant], check: Callable[[], None]
    ) -> dict[str, Result]:
        began = time.monotonic()
        teacher = Teacher(load_hbert(self._base(training.k), self.device, self.dtype))
        student, losses = self._learn(training, teacher, check)
        seconds = time.monotonic() - began
        original, spec = pretrained_tensors(self.source), student.model.spec
        changed = {name: each.detach().float().cpu() for name, each in student.model.state_dict().items()}
        student.to(self.dtype).eval()
        cost = costs(spec, student.vectors, round(np.mean([len(ids) for ids in self.text.judges])))
        results = {}
        for name, variant in variants.items():
            tensors, nbytes = keep(original, changed, variant.keep, spec)
            student.model.load_state_dict(tensors)
            whole, thinned = (self._judge(student, teacher, share) for share in (0.0, 1.0))
            results[name] = Result(whole, thinned, cost, nbytes, losses, seconds)
        return results

    def _base(self, k: int) -> Path:
        return self.folder / f"k{k}"

    def _learn(
        self, training: Training, teacher: Teacher, check: Callable[[], None]
    ) -> tuple[Tried, tuple[float, ...]]:
        seen = [ids for corpus in self.text.seen for ids in corpus]
        sample = seen[:: -(-len(seen) // self.plan.calibration_texts)]
        calibration = self._fit(
            training.student(load_hbert(self._base(training.k), self.device, self.dtype)), teacher, sample
        )
        student = training.student(load_hbert(self._base(training.k), self.device))
        calibration.set(student.model)
        config = DistillConfig(
            steps=self.plan.steps if training.is_distilled else 0,
            batch_size=self.plan.batch_size,
            thinned=training.thinned,
        )
        losses = distill(student, teacher, self.text.seen, config, on_progress=lambda progress: check())
        student.fold()
        return student, losses

    @torch.no_grad()
    def _fit(self, student: Tried, teacher: Teacher, sample: Sequences) -> Calibration:
        """As `hmi.training.distill.calibration.calibrate`, of what this student gives the upper layers."""
        Calibration.identity(student.model.spec).set(student.model)
        student.eval()
        pairs = (
            (teacher.lower(batch.ids, batch.mask), student.given(batch), batch.mask)
            for batch in self._batches(sample, thinned=0.0)
        )
        return fit_calibration(Moments.of(pairs, student.model.spec))

    @torch.no_grad()
    def _judge(self, student: Tried, teacher: Teacher, thinned: float) -> Fidelity:
        return compare_states(
            (student.states(batch), teacher.states(batch), batch.mask)
            for batch in self._batches(self.text.judges, thinned=thinned)
        )

    def _batches(self, sequences: Sequences, *, thinned: float) -> Iterator[WindowBatch]:
        """Batches of similar length; the same, with the same windows thinned, for every recipe."""
        ordered, rng = sorted(sequences, key=len), np.random.default_rng(_THINNING_SEED)
        for start in range(0, len(ordered), _JUDGED_AT_ONCE):
            yield WindowBatch.of(ordered[start : start + _JUDGED_AT_ONCE], self.device, thinned=thinned, rng=rng)


def costs(spec: HPLMSpec, vectors: int, tokens: int) -> Costs:
    """Count for rows of `vectors` vectors and sequences of `tokens` tokens.

    A missing window is k layers of 3 tokens, of which the last computes the vectors of the row alone, and the
    projection of each: H^2. A looked-up token is the layers above k, and H for each vector where a row has several.
    """
    hidden = spec.hidden_size
    token = _layer(spec, tokens, tokens) / tokens
    window = (spec.k - 1) * _layer(spec, _WINDOW, _WINDOW) + _layer(spec, vectors, _WINDOW) + vectors * hidden**2
    served = (spec.layers - spec.k) * token + (vectors * hidden if vectors > 1 else 0)
    full = spec.layers * token
    return Costs(vectors * (hidden + 4), window / full, served / full)


def _layer(spec: HPLMSpec, asked: int, given: int) -> int:
    """Multiply-adds of a layer that gets `given` tokens and computes `asked` of them.

    q, o, feed-forward, scores and their sums of values are of the computed tokens, k and v of all.
    """
    hidden, inner = spec.hidden_size, spec.intermediate_size
    return asked * (2 * hidden**2 + 2 * hidden * inner + 2 * given * hidden) + given * 2 * hidden**2
