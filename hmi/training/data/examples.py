"""Training examples. The type of an example decides the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hmi.errors import InvalidInput
from hmi.jsonlines import is_text
from hmi.spec import Family, TaskKind

_ENCODERS_LEARN = (TaskKind.CLASSIFICATION, TaskKind.MULTI_LABEL, TaskKind.TOKENS, TaskKind.EMBEDDING)
_DECODERS_LEARN = (TaskKind.LANGUAGE, TaskKind.CLASSIFICATION, TaskKind.MULTI_LABEL)


def require_learnable(kind: TaskKind, family: Family, model: str, param: str) -> None:
    """Raises `InvalidInput`, which names the `model`, for a task that its family does not learn."""
    if kind not in (_DECODERS_LEARN if family.decodes else _ENCODERS_LEARN):
        can = "text generation and classes of texts" if family.decodes else "labels and embeddings"
        raise InvalidInput(f"{model} is a {family} and learns {can}, not {kind}", param=param)


@dataclass(frozen=True, slots=True)
class Example:
    """One text and the name of its class."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class MultiLabelExample:
    """One text and all its labels, each once; there may be none."""

    text: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` (excluded) of a text, and their label."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class TaggedExample:
    """One text with labelled spans, in order and without overlap."""

    text: str
    spans: tuple[Span, ...]
    # True: a span is an entity, and text between spans has no label. False: every word is a span with its tag as it was
    # given (`B-PER`, `O`, `NOUN`).
    entities: bool


@dataclass(frozen=True, slots=True)
class PairExample:
    """A text with a similar one, its positive, and perhaps a dissimilar one, its negative."""

    text: str
    positive: str
    negative: str | None = None


@dataclass(frozen=True, slots=True)
class CompletionExample:
    """A prompt and its completion. The completion is trained; without a prompt the whole text is."""

    prompt: str
    completion: str

    @property
    def text(self) -> str:
        """Identifies the example: several may share a prompt."""
        return f"{self.prompt}\0{self.completion}"


@dataclass(frozen=True, slots=True)
class ChatExample:
    """Messages (role, content) and the answer to them. The answer is trained."""

    messages: tuple[tuple[str, str], ...]
    answer: str

    @property
    def text(self) -> str:
        """Identifies the example: several may share a prompt."""
        return "\0".join([*(content for _, content in self.messages), self.answer])


AnyExample = Example | MultiLabelExample | TaggedExample | PairExample | CompletionExample | ChatExample

_KINDS: dict[type[AnyExample], TaskKind] = {
    Example: TaskKind.CLASSIFICATION,
    MultiLabelExample: TaskKind.MULTI_LABEL,
    TaggedExample: TaskKind.TOKENS,
    PairExample: TaskKind.EMBEDDING,
    CompletionExample: TaskKind.LANGUAGE,
    ChatExample: TaskKind.LANGUAGE,
}


def kind_of(examples: Sequence[AnyExample]) -> TaskKind:
    """The task of the examples.

    Raises `InvalidInput` for no examples, for examples of different tasks, and for an empty text, with the example's
    number from 1.
    """
    if not examples:
        raise InvalidInput("there are no examples")
    kind = _KINDS[type(examples[0])]
    for number, example in enumerate(examples, start=1):
        if _KINDS[type(example)] is not kind:
            raise InvalidInput(f"example {number} is for {_KINDS[type(example)]}, the first one for {kind}")
        for text in texts_of(example):
            if not text.strip():
                raise InvalidInput(f"example {number}: its text is empty")
            if not is_text(text):
                raise InvalidInput(f"example {number}: its text holds half a surrogate pair, which is no character")
    return kind


def texts_of(example: AnyExample) -> tuple[str, ...]:
    """Every text that the model reads for an example."""
    if isinstance(example, PairExample):
        return tuple(text for text in (example.text, example.positive, example.negative) if text is not None)
    if isinstance(example, CompletionExample):
        return (example.prompt + example.completion,)
    if isinstance(example, ChatExample):
        return (*(content for _, content in example.messages), example.answer)
    return (example.text,)


def labels_in(example: AnyExample) -> tuple[str, ...]:
    """The labels of one example, of spans one for each."""
    match example:
        case Example():
            return (example.label,)
        case MultiLabelExample():
            return example.labels
        case TaggedExample():
            return tuple(span.label for span in example.spans)
        case _:
            return ()
