"""How well an adapter that exists answers labelled text: one from elsewhere as well as one that was just trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hmi.adapters import Adapter, Head, Pooling
from hmi.adapters.formats import check_delta
from hmi.adapters.maths import SingleAdapter
from hmi.devices import resolve_device, resolve_dtype
from hmi.errors import InvalidInput
from hmi.models.families import load_hbert, load_tokenizer
from hmi.models.text import is_bio
from hmi.spec import TaskKind
from hmi.training.data import AnyExample, kind_of, labels_in
from hmi.training.reports import Evaluation
from hmi.training.tasks import (
    Classification,
    FixedAdapter,
    LabelObjective,
    MultiLabel,
    Network,
    Preprocessor,
    Tagging,
    tag_labels,
)

__all__ = ["evaluate_adapter", "labels_of", "require_labels", "task_of"]

_MOST_NAMED = 5


def task_of(head: Head) -> TaskKind:
    """What a head answers."""
    if head.pooling is Pooling.TOKENS:
        return TaskKind.TOKENS
    return TaskKind.MULTI_LABEL if head.multi_label else TaskKind.CLASSIFICATION


def labels_of(examples: Sequence[AnyExample]) -> set[str]:
    """All labels that a head needs for the examples. Raises `InvalidInput` where no words could be told apart."""
    if kind_of(examples) is TaskKind.TOKENS:
        return set(tag_labels(examples))  # type: ignore[arg-type]  # as their kind says
    return {label for example in examples for label in labels_in(example)}


def require_labels(head: Head, examples: Sequence[AnyExample]) -> None:
    """Raises `InvalidInput` where a head cannot give the labels of the examples, naming some of both."""
    task, asked = task_of(head), kind_of(examples)
    if asked is not task:
        raise InvalidInput(f"the text is labelled for {asked}, and the adapter's head is for {task}")
    wanted = labels_of(examples)
    if unknown := sorted(wanted - set(head.labels)):
        raise InvalidInput(
            f"the text has labels that the adapter does not give: {_some(unknown)}; the adapter's are "
            f"{_some(head.labels)}, and can be given other names, in this order"
        )
    if task is TaskKind.TOKENS and is_bio(wanted) != is_bio(head.labels):
        raise InvalidInput("the text's labels name parts by B-, I- and O, and not all of the adapter's do")


def evaluate_adapter(
    folder: Path,
    adapter: Adapter,
    examples: Sequence[AnyExample],
    *,
    max_tokens: int = 128,
    delta: Adapter | None = None,
    device: str = "cpu",
    dtype: str = "auto",
) -> Evaluation:
    """The answers of an adapter with a head, on the base artifact in `folder`, to the examples.

    Args:
        max_tokens: Longer texts are cut, special tokens included.
        delta: Of the domain whose rows are looked up.
        device, dtype: As in `hmi.engine.config.EngineConfig`.

    Raises:
        InvalidInput: The adapter has no head, or one that cannot give the examples' labels.
        AdapterRefused: The adapter or the delta is none of this base's.
        Corrupt: A damaged base.
    """
    if adapter.head is None:
        raise InvalidInput("the adapter has no head, so it gives no labels that could be judged")
    require_labels(adapter.head, examples)
    where = resolve_device(device)
    model = load_hbert(folder, where, resolve_dtype(dtype, where))
    adapter.validate(model.spec)
    if delta is not None:
        check_delta(delta, model.spec)
    lower = None if delta is None else SingleAdapter.of(delta, where, model.dtype)
    longest = min(max_tokens, model.spec.max_positions)
    texts = Preprocessor(model, load_tokenizer(folder), longest, lower, yield_hook=lambda: None)
    network = Network(model, FixedAdapter(adapter, model), yield_hook=lambda: None)
    objective = _objective(adapter.head)
    return objective.examine(network, objective.prepare(examples, texts))


def _objective(head: Head) -> LabelObjective[Any]:
    match task_of(head):
        case TaskKind.TOKENS:
            return Tagging(head.labels)
        case TaskKind.MULTI_LABEL:
            return MultiLabel(head.labels, head.pooling)
        case _:
            return Classification(head.labels, head.pooling)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(repr, names[:_MOST_NAMED])) + more
