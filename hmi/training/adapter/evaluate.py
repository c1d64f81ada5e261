"""How well an existing adapter answers labelled text, be it imported or just trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
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
from hmi.training.lower import LowerStates
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

_MOST_NAMED = 5


def task_of(head: Head) -> TaskKind:
    """The task that a head is for."""
    if head.pooling is Pooling.TOKENS:
        return TaskKind.TOKENS
    return TaskKind.MULTI_LABEL if head.multi_label else TaskKind.CLASSIFICATION


def labels_of(examples: Sequence[AnyExample]) -> set[str]:
    """All labels that a head needs for the examples. Raises `InvalidInput` if their tags make no tag set."""
    if kind_of(examples) is TaskKind.TOKENS:
        return set(tag_labels(examples))  # type: ignore[arg-type]  # as their kind says
    return {label for example in examples for label in labels_in(example)}


def require_labels(head: Head, examples: Sequence[AnyExample]) -> None:
    """Raises `InvalidInput` if a head cannot give the labels of the examples, naming some of both."""
    task, kind = task_of(head), kind_of(examples)
    if kind is not task:
        raise InvalidInput(f"the text is labelled for {kind}, and the adapter's head is for {task}")
    labels = labels_of(examples)
    if unknown := sorted(labels - set(head.labels)):
        raise InvalidInput(
            f"the text has labels that the adapter does not give: {_some(unknown)}; the adapter's are "
            f"{_some(head.labels)}, and can be given other names, in this order"
        )
    if task is TaskKind.TOKENS and is_bio(labels) != is_bio(head.labels):
        raise InvalidInput("the text's labels mark entities by B-, I- and O, and not all of the adapter's do")


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
    """Evaluate an adapter with a head, on the base artifact in `folder` and the rows of the domain with `delta`.

    Texts are cut to `max_tokens`, special tokens included. Raises `InvalidInput` (no head, or one that cannot give the
    examples' labels), `AdapterRefused` (the adapter or the delta does not fit the base), `Corrupt` (the base).
    """
    if adapter.head is None:
        raise InvalidInput("the adapter has no head, so it gives no labels to evaluate")
    require_labels(adapter.head, examples)
    where = resolve_device(device)
    model = load_hbert(folder, where, resolve_dtype(dtype, where))
    adapter.validate(model.spec)
    if delta is not None:
        check_delta(delta, model.spec)
    lower = None if delta is None else SingleAdapter.of(delta, where, model.dtype)
    longest = min(max_tokens, model.spec.max_positions)
    states_of = partial(LowerStates, model, delta=lower)
    texts = Preprocessor(load_tokenizer(folder), model.spec, longest, states_of)
    network = Network(model, FixedAdapter(adapter, model), yield_hook=lambda: None)
    objective = _objective(adapter.head)
    return objective.evaluate_each(network, objective.prepare(examples, texts))


def _objective(head: Head) -> LabelObjective[Any, Any]:
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
