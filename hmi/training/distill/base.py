"""A base artifact from a pretrained model: converted, fitted to text, distilled from the unchanged model.

With k > 0 the lower layers see 3-token windows instead of the sequence. `calibration` makes up for the most of it in
closed form, `distill` for most of what is left; `hmi.models.convert` keeps what came of it in a few megabytes, from
which the artifact can be made again in seconds.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from torch import Tensor

from hmi.devices import resolve_device, resolve_dtype
from hmi.errors import Conflict, InvalidInput
from hmi.models.convert import WeightDiff, convert_pretrained, pretrained_tensors, weights_digest
from hmi.models.families import load_hplm, load_spec, load_tokenizer, save_hplm
from hmi.models.layers import RowEstimator
from hmi.models.text import load_chat
from hmi.spec import HPLMSpec, RowDtype
from hmi.training.distill.calibration import Calibration, calibrate
from hmi.training.distill.corpora import digest_of_corpora, some, split_corpora
from hmi.training.distill.estimator import EstimatorConfig, fit_estimator
from hmi.training.distill.fidelity import Fidelity, measure_fidelity
from hmi.training.distill.student import DistillConfig, Student, distill
from hmi.training.distill.teacher import Teacher
from hmi.training.reports import TrainProgress

__all__ = ["BaseReport", "add_estimator", "apply_weight_diff", "build_base", "work_folder"]

_CALIBRATION_TEXTS = 4000  # more hardly moves the means
_CHECKPOINT = "checkpoint.safetensors"
_ESTIMATOR = "estimator."
_NOT_DISTILLED = DistillConfig(steps=0)


@dataclass(frozen=True, slots=True)
class BaseReport:
    """What came of it.

    Attributes:
        texts: Learnt from; `judges` others measured the fidelity.
        before: Of the plain conversion, `fitted` after the closed form, `after` at the end; None where there was no
            text, and for k = 0, which is the pretrained model.
        losses: Of distillation, means over each tenth of the steps.
        estimate_error: Of the judging texts' rows, see `RowEstimator.error`; None where there is no estimator.
        seconds: From reading the pretrained model to the end, this run alone.
    """

    spec: HPLMSpec
    texts: int = 0
    judges: int = 0
    before: Fidelity | None = None
    fitted: Fidelity | None = None
    after: Fidelity | None = None
    losses: tuple[float, ...] = ()
    estimate_error: float | None = None
    seconds: float = 0.0


def work_folder(out: Path) -> Path:
    """Where a build of `out` keeps what a later run goes on with."""
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
    on_progress: Callable[[TrainProgress], None] = lambda progress: None,
) -> BaseReport:
    """Make the base artifact `out` from a transformers folder; it appears whole or not at all.

    With text it is fitted, and distilled for `config.steps`; what is done of that stays in `work_folder(out)` until it
    is whole, and the same call goes on with it.

    Args:
        corpora: Texts, one sentence or so each. Distillation takes an equal share of each corpus.
        estimator: How what stands in for rows under the miss policy `backoff` is taught, once the rows are what they
            will be; None: there is none, and shorter n-grams stand in.
        difference: File to write what was learnt to; the artifact is then made from that file, rounded as it is.

    Raises:
        InvalidInput: A source that is not understood, too little text, or text for k = 0.
        Conflict: `out` is there already.
    """
    began = time.monotonic()
    if out.exists():
        raise Conflict(f"{out} is there already; remove it or choose another folder")
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
            report = _learn(source, converted, corpora, config, estimator, work / _CHECKPOINT, difference, on_progress)
        converted.rename(out)
    finally:
        shutil.rmtree(converted, ignore_errors=True)
        if not (work / _CHECKPOINT).exists() or out.exists():
            shutil.rmtree(work, ignore_errors=True)
    return dataclasses.replace(report, seconds=time.monotonic() - began)


def add_estimator(
    base: Path,
    out: Path,
    corpora: Sequence[Sequence[str]],
    config: EstimatorConfig,
    *,
    max_tokens: int = 128,
    device: str = "cpu",
    on_progress: Callable[[TrainProgress], None] = lambda progress: None,
) -> float:
    """The base artifact `base` with an estimator, or another one, as `out`, which appears whole or not at all.

    Returns:
        `RowEstimator.error`, on text that was not learnt from.

    Raises:
        InvalidInput: k = 0 (nothing is looked up), or too little text.
        Conflict: `out` is there already.
        Corrupt: A damaged base.
    """
    if out.exists():
        raise Conflict(f"{out} is there already; remove it or choose another folder")
    where = resolve_device(device)
    model = load_hplm(base, where, resolve_dtype("auto", where))
    if not model.spec.k:
        raise InvalidInput("a base with k = 0 looks nothing up, so nothing needs to be estimated")
    longest = min(max_tokens, model.spec.max_positions)
    has_end = not model.spec.family.decodes
    seen, judges = split_corpora(corpora, load_tokenizer(base), longest, has_end=has_end)
    estimator = fit_estimator(model, list(chain(*seen)), judges, config, on_progress=on_progress)
    tensors = {name: each for name, each in load_hplm(base).state_dict().items() if not name.startswith(_ESTIMATOR)}
    spec = dataclasses.replace(model.spec, estimator_size=config.size)
    beside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        save_hplm(beside, spec, tensors | _named(estimator), load_tokenizer(base), load_chat(base))
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return float(estimator.error)


def _named(estimator: RowEstimator) -> dict[str, Tensor]:
    """Its tensors as a base artifact names them."""
    return {f"{_ESTIMATOR}{name}": tensor for name, tensor in estimator.state_dict().items()}


def apply_weight_diff(source: Path, difference: WeightDiff, out: Path, row_dtype: RowDtype | None = None) -> HPLMSpec:
    """The base artifact that a difference from a pretrained model stands for, in seconds.

    Args:
        source: The transformers folder of the pretrained model.
        row_dtype: Other than the one that it was made with.

    Raises `InvalidInput` where `source` is another model, `Conflict` where `out` is there already.
    """
    if out.exists():
        raise Conflict(f"{out} is there already; remove it or choose another folder")
    spec = dataclasses.replace(difference.spec, row_dtype=row_dtype or difference.spec.row_dtype)
    beside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        convert_pretrained(source, beside, k=0)  # for its tokenizer, and the checks of what is read
        save_hplm(beside, spec, difference.apply(pretrained_tensors(source)), load_tokenizer(beside))
        load_hplm(beside)  # proves that names and shapes are whole
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return spec


def _learn(
    source: Path,
    folder: Path,
    corpora: Sequence[Sequence[str]],
    config: DistillConfig,
    estimator: EstimatorConfig | None,
    checkpoint: Path,
    difference: Path | None,
    on_progress: Callable[[TrainProgress], None],
) -> BaseReport:
    """Change the converted base in `folder` by what text teaches."""
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    tokenizer = load_tokenizer(folder)
    spec = load_spec(folder)
    longest = min(config.max_tokens, spec.max_positions)
    seen, judges = split_corpora(corpora, tokenizer, longest, has_end=not spec.family.decodes)
    teacher, model = Teacher(load_hplm(folder, device, dtype)), load_hplm(folder, device, dtype)
    Calibration.identity(model.spec).set(model)
    before = measure_fidelity(model, judges)
    calibration = calibrate(model, some([ids for corpus in seen for ids in corpus], _CALIBRATION_TEXTS))
    calibration.set(model)
    fitted = after = measure_fidelity(model, judges)
    original = pretrained_tensors(source)
    tensors = {**load_hplm(folder).state_dict(), **calibration.tensors()}
    losses: tuple[float, ...] = ()
    if config.steps:
        student = load_hplm(folder, device)
        calibration.set(student)
        origin = f"{weights_digest(original)} {model.spec.to_json()} {digest_of_corpora(seen)}"
        losses = distill(
            Student(student), teacher, seen, config, checkpoint=checkpoint, origin=origin, on_progress=on_progress
        )
        tensors = {name: each.detach().cpu() for name, each in student.state_dict().items()}
    spec = dataclasses.replace(model.spec, distilled=bool(config.steps))
    made = WeightDiff.between(original, tensors, spec, {}) if difference else None
    save_hplm(folder, spec, made.apply(original) if made else tensors, tokenizer)
    model = load_hplm(folder, device, dtype)
    if config.steps:
        after = measure_fidelity(model, judges, teacher=teacher)
    error = None
    if estimator is not None:
        fitted_estimator = fit_estimator(model, list(chain(*seen)), judges, estimator, on_progress=on_progress)
        error = float(fitted_estimator.error)
        spec = dataclasses.replace(spec, estimator_size=estimator.size)
        tensors |= _named(fitted_estimator)
        made = WeightDiff.between(original, tensors, spec, {}) if difference else None
        save_hplm(folder, spec, made.apply(original) if made else tensors, tokenizer)
    report = BaseReport(spec, sum(map(len, seen)), len(judges), before, fitted, after, losses, error)
    if made and difference:
        about = {"config": dataclasses.asdict(config), **dataclasses.asdict(report)}
        if estimator is not None:
            about["estimator"] = dataclasses.asdict(estimator)
        dataclasses.replace(made, about=about).save(difference)
    return report
