"""What an adapter from elsewhere would lose if it were trained again on bases that look lower layers up.

The adapter is judged as it is, at k = 0; then one like it that was trained here at k = 0, so that what training again
costs is known apart; then one that was trained on each of the other bases. All answer the same texts, which none of
those learnt from and by which no epoch was chosen.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hmi.adapters import Adapter
from hmi.errors import InvalidInput
from hmi.models.families import load_tokenizer
from hmi.spec import HPLMSpec, read_spec
from hmi.training.adapter import evaluate_adapter, labels_of, require_labels, task_of, train_adapter
from hmi.training.data import AnyExample, split_train_dev_test
from hmi.training.plan import TrainConfig, config_like
from hmi.training.reports import (
    IMPORTED,
    AdapterComparison,
    Evaluation,
    RetrainReport,
    TrainedAdapter,
    TrainProgress,
    compare_evaluations,
)

__all__ = ["RetrainResult", "RetrainTarget", "name_targets", "retrain"]

_SAME_SHAPE = ("layers", "hidden_size", "heads", "intermediate_size", "vocab_size")


@dataclass(frozen=True, slots=True)
class RetrainTarget:
    """A base with k > 0 to train on, and the delta of the domain that would be looked up in."""

    folder: Path
    delta: Adapter | None = None


@dataclass(frozen=True, slots=True)
class RetrainResult:
    """The report, and each adapter that was trained for it, by the name that it has there."""

    report: RetrainReport
    adapters: dict[str, TrainedAdapter]


OnRetraining = Callable[[str, TrainProgress], None]
"""Told the name of what is being trained, and how far it is, after every step."""


def retrain(
    folder: Path,
    adapter: Adapter,
    examples: Sequence[AnyExample],
    how: TrainConfig,
    dev: Sequence[AnyExample] = (),
    *,
    faster: Sequence[RetrainTarget] = (),
    on_progress: OnRetraining = lambda name, progress: None,
    checkpoint: Callable[[str], Path | None] = lambda name: None,
) -> RetrainResult:
    """Judge an adapter and train others like it.

    Args:
        folder: Base artifact with k = 0, that the adapter stands on.
        examples: To train on; a part of them chooses the epoch.
        how: Of what the adapter does not settle: epochs, batch size, learning rate, seed, longest text and the like.
        dev: That everybody is judged on; without it another part of the examples, `how.dev_share` of them.
        checkpoint: Where the training of that name keeps its state, as in `train_adapter`.

    Raises:
        InvalidInput: An adapter without a head, text that it has no labels for or of which nothing is left to judge by,
            or a base that is no faster version of the model.
        AdapterRefused, Corrupt, OSError: As `train_adapter`.
    """
    head, spec = adapter.head, read_spec(folder)
    if head is None:
        raise InvalidInput("the adapter has no head, so it gives no labels that could be judged")
    targets = name_targets(folder, faster)
    require_labels(head, [*examples, *dev])
    learnt, choosing, judging = split_train_dev_test(examples, dev, how.dev_share)
    config, differs = config_like(adapter, head, spec, labels_of(examples), how)

    def judge(target: RetrainTarget, candidate: Adapter) -> Evaluation:
        return evaluate_adapter(
            target.folder,
            candidate,
            judging,
            max_tokens=how.max_tokens,
            delta=target.delta,
            device=how.device,
            dtype=how.dtype,
        )

    imported = judge(RetrainTarget(folder), adapter)
    comparisons = [_comparison(IMPORTED, RetrainTarget(folder), adapter, adapter, imported)]
    adapters: dict[str, TrainedAdapter] = {}
    ordinary: Evaluation | None = None
    for name, target in targets.items():
        trained = train_adapter(
            target.folder,
            learnt,
            config if choosing else dataclasses.replace(config, dev_share=0),
            choosing,
            delta=target.delta,
            on_progress=functools.partial(on_progress, name),
            checkpoint=checkpoint(name),
        )
        found = judge(target, trained.adapter)
        comparisons.append(
            dataclasses.replace(
                _comparison(name, target, trained.adapter, adapter, found),
                seconds=trained.report.seconds,
                epochs=trained.report.epochs,
                to_imported=compare_evaluations(found, imported),
                to_retrained=compare_evaluations(found, ordinary) if ordinary else None,
            )
        )
        adapters[name] = trained
        ordinary = ordinary or found
    report = RetrainReport(
        task=task_of(head),
        metric=imported.metrics.name,
        test_examples=len(judging),
        truncated=_count_cut(folder, judging, min(how.max_tokens, spec.max_positions)),
        train_examples=len(learnt),
        dev_examples=len(choosing),
        config=config,
        comparisons=tuple(comparisons),
        notes=tuple(_notes(differs, given=bool(dev), chosen=bool(choosing))),
    )
    return RetrainResult(report, adapters)


def name_targets(folder: Path, faster: Sequence[RetrainTarget]) -> dict[str, RetrainTarget]:
    """What is trained on, the ordinary base first, by the name of what comes of it: `retrained-k3`, and
    `retrained-k3-2` for another with that k.

    Raises `InvalidInput` unless `folder` is a base with k = 0, and the others are versions of it with k > 0.
    """
    spec = read_spec(folder)
    if spec.k:
        raise InvalidInput(f"{folder} looks {spec.k} lower layers up; an adapter from elsewhere stands on k = 0")
    named = {"retrained-k0": RetrainTarget(folder)}
    for target in faster:
        found = read_spec(target.folder)
        _require_version(found, spec, target.folder)
        name = f"retrained-k{found.k}"
        before = sum(each == name or each.startswith(f"{name}-") for each in named)
        named[f"{name}-{before + 1}" if before else name] = target
    return named


def _require_version(found: HPLMSpec, spec: HPLMSpec, folder: Path) -> None:
    if not found.k:
        raise InvalidInput(f"{folder} has k = 0 and looks nothing up; at k = 0 the adapter is retrained in any case")
    for name in _SAME_SHAPE:
        ours, theirs = getattr(spec, name), getattr(found, name)
        if theirs != ours:
            raise InvalidInput(f"{folder} is of another model: its {name} is {theirs}, not {ours}")


def _count_cut(folder: Path, examples: Sequence[AnyExample], max_tokens: int) -> int:
    encodings = load_tokenizer(folder).encode_batch_fast([example.text for example in examples])
    return sum(len(encoding.ids) > max_tokens for encoding in encodings)


def _comparison(
    name: str, target: RetrainTarget, adapter: Adapter, imported: Adapter, found: Evaluation
) -> AdapterComparison:
    spec = read_spec(target.folder)
    return AdapterComparison(
        name=name,
        base=target.folder.resolve().name,
        k=spec.k,
        layers=spec.layers,
        delta=target.delta is not None,
        left_out=tuple(sorted({layer for layer, _ in [*imported.lora, *imported.bottleneck] if layer < spec.k})),
        metrics=dict(found.metrics.values),
        bytes=adapter.nbytes,
    )


def _notes(differs: Sequence[str], *, given: bool, chosen: bool) -> Iterator[str]:
    if differs:
        yield f"The imported adapter is not made again to the letter: {'; '.join(differs)}."
    if not given:
        yield (
            "The texts that judge are a part of the training text. If the imported adapter was trained on them, it "
            "looks better here than it is; a dev part that it has not seen tells."
        )
    if not chosen:
        yield "Too few examples were there to choose an epoch by: each training ran to its last one."
    yield "Standard errors are over the texts that judge; another seed moves what is retrained as well."
