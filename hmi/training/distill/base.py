"""A base artifact from a pretrained model: converted, fitted to text, distilled from the unchanged model.

With k > 0 the lower layers read 3-token windows instead of the sequence. `calibration` makes up for most of it in
closed form, `distill` for most of the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from torch import Tensor

from hmi.devices import resolve_device, resolve_dtype
from hmi.errors import Conflict, InvalidInput
from hmi.models.convert import WeightDiff, convert_pretrained, pretrained_tensors, weights_digest
from hmi.models.families import load_hplm, load_tokenizer, save_hplm
from hmi.models.layers import RowEstimator
from hmi.models.text import load_chat
from hmi.spec import HPLMSpec, RowDtype, read_spec
from hmi.training.distill.calibration import Calibration, calibrate
from hmi.training.distill.corpora import at_most, digest_of_corpora, split_corpora
from hmi.training.distill.estimator import EstimatorConfig, fit_estimator
from hmi.training.distill.fidelity import Fidelity, measure_fidelity
from hmi.training.distill.student import DistillConfig, Student, distill
from hmi.training.distill.teacher import Teacher
from hmi.training.reports import OnProgress

_CALIBRATION_TEXTS = 4000  # more hardly change the means
_CHECKPOINT = "checkpoint.safetensors"
_ESTIMATOR = "estimator."
_NOT_DISTILLED = DistillConfig(steps=0)


@dataclass(frozen=True, slots=True)
class BaseReport:
    """The outcome of a build."""

    spec: HPLMSpec
    texts: int = 0  # trained on
    dev_texts: int = 0  # others, which measured the fidelity
    before: Fidelity | None = None  # of the plain conversion; None without text
    fitted: Fidelity | None = None  # after calibration
    after: Fidelity | None = None  # at the end
    losses: tuple[float, ...] = ()  # of distillation, means over each tenth of the steps
    estimate_error: float | None = None  # `RowEstimator.error` on the dev texts; None without an estimator
    seconds: float = 0.0  # of this run alone


def work_folder(out: Path) -> Path:
    """Where a build of `out` keeps its checkpoint."""
    return out.with_name(f"{out.name}.building")


def build_base(
    source: Path,
    out: Path,
    k: int,
    row_dtype: RowDtype = RowDtype.INT8,
    corpora: Sequence[Sequence[str]] = (),
    config: DistillConfig = _NOT_DISTILLED,
    *,
    estimator: EstimatorConfig | None = None,
    difference: Path | None = None,
    on_progress: OnProgress = lambda progress: None,
) -> BaseReport:
    """Make the base artifact `out` from a transformers folder; it appears whole or not at all.

    With text it is fitted, and distilled for `config.steps`. An interrupted build leaves its checkpoint in
    `work_folder(out)`, and the same call resumes it.

    Args:
        corpora: Texts, about one sentence each. Distillation takes an equal share of each corpus.
        estimator: How the estimator of missing rows is trained, for the miss policy `backoff`; None for no estimator.
        difference: File to write the learnt weights to; the artifact is then made from that file, with its rounding.

    Raises `InvalidInput` (an unknown source, too little text, text for k = 0), `Conflict` (`out` exists).
    """
    began = time.monotonic()
    _require_new(out)
    if not k and any(corpora):
        raise InvalidInput("k = 0 is the pretrained model as it is, so there is nothing to learn from text")
    if k and config.steps and not any(corpora):
        raise InvalidInput("distillation needs text")
    work = work_folder(out)
    converted = work / "base"
    shutil.rmtree(converted, ignore_errors=True)
    try:
        spec = convert_pretrained(source, converted, k=k, row_dtype=row_dtype)
        report = BaseReport(spec)
        if any(corpora):
            build = _Build(source, converted, config, estimator, work / _CHECKPOINT, difference, on_progress)
            report = build.learn(corpora)
        converted.rename(out)
    finally:
        shutil.rmtree(converted, ignore_errors=True)
        if not (work / _CHECKPOINT).exists() or out.exists():
            shutil.rmtree(work, ignore_errors=True)
    return dataclasses.replace(report, seconds=time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class _Build:
    """Arguments of `build_base`; `folder` is the converted base, which text changes."""

    source: Path
    folder: Path
    config: DistillConfig
    estimator: EstimatorConfig | None
    checkpoint: Path
    difference: Path | None
    on_progress: OnProgress

    def learn(self, corpora: Sequence[Sequence[str]]) -> BaseReport:
        folder, config = self.folder, self.config
        device = resolve_device(config.device)
        dtype = resolve_dtype(config.dtype, device)
        spec = read_spec(folder)
        longest = min(config.max_tokens, spec.max_positions)
        seen, held_out = split_corpora(corpora, load_tokenizer(folder), longest, has_end=not spec.family.decodes)
        teacher, model = Teacher(load_hplm(folder, device, dtype)), load_hplm(folder, device, dtype)
        Calibration.identity(spec).set(model)
        before = measure_fidelity(model, held_out)
        calibration = calibrate(model, at_most(list(chain(*seen)), _CALIBRATION_TEXTS))
        calibration.set(model)
        fitted = after = measure_fidelity(model, held_out)
        original = pretrained_tensors(self.source)
        tensors = {**load_hplm(folder).state_dict(), **calibration.tensors()}
        losses: tuple[float, ...] = ()
        if config.steps:
            student = load_hplm(folder, device)
            calibration.set(student)
            origin = f"{weights_digest(original)} {spec.to_json()} {digest_of_corpora(seen)}"
            losses = distill(
                Student(student),
                teacher,
                seen,
                config,
                checkpoint=self.checkpoint,
                origin=origin,
                on_progress=self.on_progress,
            )
            tensors = {name: each.detach().cpu() for name, each in student.state_dict().items()}
        spec = dataclasses.replace(spec, distilled=bool(config.steps))
        diff = self._save(spec, original, tensors)
        model = load_hplm(folder, device, dtype)
        if config.steps:
            after = measure_fidelity(model, held_out, teacher=teacher)
        error = None
        if self.estimator is not None:  # of the rows as they are saved
            fit = fit_estimator(model, list(chain(*seen)), held_out, self.estimator, on_progress=self.on_progress)
            error = float(fit.error)
            spec = dataclasses.replace(spec, estimator_size=self.estimator.size)
            diff = self._save(spec, original, tensors | _estimator_tensors(fit))
        report = BaseReport(spec, sum(map(len, seen)), len(held_out), before, fitted, after, losses, error)
        if diff and self.difference:
            self._about(diff, report).save(self.difference)
        return report

    def _save(self, spec: HPLMSpec, original: dict[str, Tensor], tensors: dict[str, Tensor]) -> WeightDiff | None:
        """Replace the base in the folder, through the difference if that is written."""
        tokenizer = load_tokenizer(self.folder)
        diff = WeightDiff.between(original, tensors, spec, {}) if self.difference else None
        save_hplm(self.folder, spec, diff.apply(original) if diff else tensors, tokenizer)
        return diff

    def _about(self, diff: WeightDiff, report: BaseReport) -> WeightDiff:
        about = {"config": dataclasses.asdict(self.config), **dataclasses.asdict(report)}
        if self.estimator is not None:
            about["estimator"] = dataclasses.asdict(self.estimator)
        return dataclasses.replace(diff, about=about)


def add_estimator(
    base: Path,
    out: Path,
    corpora: Sequence[Sequence[str]],
    config: EstimatorConfig,
    *,
    max_tokens: int = 128,
    device: str = "cpu",
    on_progress: OnProgress = lambda progress: None,
) -> float:
    """Copy the base artifact `base` to `out` with a new estimator; `out` appears whole or not at all.

    Returns its `RowEstimator.error` on text that was not trained on. Raises `InvalidInput` (k = 0, too little text),
    `Conflict` (`out` exists), `Corrupt` (the base).
    """
    _require_new(out)
    where = resolve_device(device)
    model = load_hplm(base, where, resolve_dtype("auto", where))
    if not model.spec.k:
        raise InvalidInput("a base with k = 0 looks nothing up, so nothing needs to be estimated")
    longest = min(max_tokens, model.spec.max_positions)
    seen, held_out = split_corpora(corpora, load_tokenizer(base), longest, has_end=not model.spec.family.decodes)
    estimator = fit_estimator(model, list(chain(*seen)), held_out, config, on_progress=on_progress)
    tensors = {name: each for name, each in load_hplm(base).state_dict().items() if not name.startswith(_ESTIMATOR)}
    spec = dataclasses.replace(model.spec, estimator_size=config.size)
    with _new_folder(out) as beside:
        save_hplm(beside, spec, tensors | _estimator_tensors(estimator), load_tokenizer(base), load_chat(base))
    return float(estimator.error)


def apply_weight_diff(source: Path, difference: WeightDiff, out: Path, row_dtype: RowDtype | None = None) -> HPLMSpec:
    """Make the base artifact that a difference from the pretrained model in `source` describes, in seconds.

    Raises `InvalidInput` if `source` is another model, `Conflict` if `out` exists.
    """
    _require_new(out)
    spec = dataclasses.replace(difference.spec, row_dtype=row_dtype or difference.spec.row_dtype)
    with _new_folder(out) as beside:
        convert_pretrained(source, beside, k=0)  # for its tokenizer, and the checks of the source
        save_hplm(beside, spec, difference.apply(pretrained_tensors(source)), load_tokenizer(beside))
        load_hplm(beside)  # checks names and shapes
    return spec


def _estimator_tensors(estimator: RowEstimator) -> dict[str, Tensor]:
    """By their names in the artifact."""
    return {f"{_ESTIMATOR}{name}": tensor for name, tensor in estimator.state_dict().items()}


def _require_new(out: Path) -> None:
    if out.exists():
        raise Conflict(f"{out} is there already; remove it or choose another folder")


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out`, which becomes `out` if the block succeeds."""
    beside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        yield beside
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
