"""What an imported adapter would lose if it were retrained on bases that look lower layers up.

The adapter is evaluated as it is, at k = 0; then an adapter like it that was trained here at k = 0, which shows the
cost of retraining alone; then one trained on each of the other bases. All are evaluated on the same texts, which were
not used for training or for choosing an epoch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
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

_SAME_SHAPE = ("layers", "hidden_size", "heads", "intermediate_size", "vocab_size")


@dataclass(frozen=True, slots=True)
class RetrainTarget:
    """A base to train on, and the delta of the domain whose rows would be looked up."""

    folder: Path
    delta: Adapter | None = None


@dataclass(frozen=True, slots=True)
class RetrainResult:
    """The report, and each retrained adapter by its name in the report."""

    report: RetrainReport
    adapters: dict[str, TrainedAdapter]


OnRetraining = Callable[[str, TrainProgress], None]
"""Called after every step with the name of the adapter in training and its progress."""


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
    """Evaluate an adapter and train others like it.

    Args:
        folder: The adapter's base artifact, with k = 0.
        how: For what the adapter does not determine: epochs, batch size, learning rate, seed, longest text.
        dev: The test set; by default a part of the examples, `how.dev_share` of them.
        faster: Bases of the same model with k > 0.
        checkpoint: Checkpoint file of the training with that name, as in `train_adapter`.

    Raises `InvalidInput` (an adapter without a head or the labels, too few examples for a test set, another base
    model), and as `train_adapter`.
    """
    head, spec = adapter.head, read_spec(folder)
    if head is None:
        raise InvalidInput("the adapter has no head, so it gives no labels to evaluate")
    targets = name_targets(folder, faster)
    require_labels(head, [*examples, *dev])
    train, choosing, test = split_train_dev_test(examples, dev, how.dev_share)
    config, differs = config_like(adapter, head, spec, labels_of(examples), how)
    adapters = {
        name: train_adapter(
            target.folder,
            train,
            config if choosing else dataclasses.replace(config, dev_share=0),
            choosing,
            delta=target.delta,
            on_progress=functools.partial(on_progress, name),
            checkpoint=checkpoint(name),
        )
        for name, target in targets.items()
    }
    imported = _evaluate(RetrainTarget(folder), adapter, test, how)
    comparisons = [_comparison(IMPORTED, RetrainTarget(folder), adapter, adapter, imported)]
    comparisons += _compare_retrained(targets, adapters, adapter, imported, test, how)
    report = RetrainReport(
        task=task_of(head),
        metric=imported.metrics.name,
        test_examples=len(test),
        truncated=_count_truncated(folder, test, min(how.max_tokens, spec.max_positions)),
        train_examples=len(train),
        dev_examples=len(choosing),
        config=config,
        comparisons=tuple(comparisons),
        notes=tuple(_notes(differs, given=bool(dev), chosen=bool(choosing))),
    )
    return RetrainResult(report, adapters)


def _compare_retrained(
    targets: Mapping[str, RetrainTarget],
    retrained: Mapping[str, TrainedAdapter],
    adapter: Adapter,
    imported: Evaluation,
    test: Sequence[AnyExample],
    how: TrainConfig,
) -> Iterator[AdapterComparison]:
    ordinary: Evaluation | None = None
    for name, target in targets.items():
        trained = retrained[name]
        found = _evaluate(target, trained.adapter, test, how)
        yield dataclasses.replace(
            _comparison(name, target, trained.adapter, adapter, found),
            seconds=trained.report.seconds,
            epochs=trained.report.epochs,
            to_imported=compare_evaluations(found, imported),
            to_retrained=compare_evaluations(found, ordinary) if ordinary else None,
        )
        ordinary = ordinary or found


def _evaluate(target: RetrainTarget, adapter: Adapter, test: Sequence[AnyExample], how: TrainConfig) -> Evaluation:
    return evaluate_adapter(
        target.folder,
        adapter,
        test,
        max_tokens=how.max_tokens,
        delta=target.delta,
        device=how.device,
        dtype=how.dtype,
    )


def name_targets(folder: Path, faster: Sequence[RetrainTarget]) -> dict[str, RetrainTarget]:
    """The bases to train on, the ordinary one first, by the name of the retrained adapter: `retrained-k3`, and
    `retrained-k3-2` for another base with that k.

    Raises `InvalidInput` unless `folder` is a base with k = 0 and the others are the same model with k > 0.
    """
    spec = read_spec(folder)
    if spec.k:
        raise InvalidInput(f"{folder} looks {spec.k} lower layers up; an imported adapter needs a base with k = 0")
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


def _count_truncated(folder: Path, examples: Sequence[AnyExample], max_tokens: int) -> int:
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
        yield f"The retrained adapters are not exactly like the imported one: {'; '.join(differs)}."
    if not given:
        yield (
            "The test set is a part of the training text. If the imported adapter was trained on it, its metrics here "
            "are too high; use a dev set that it was not trained on."
        )
    if not chosen:
        yield "There were too few examples to choose an epoch: each training kept its last one."
    yield "Standard errors are over the texts of the test set; another seed also changes the retrained adapters."
