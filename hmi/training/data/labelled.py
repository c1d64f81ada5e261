"""Labelled text from files: read line by line, checked before any time is spent on training.

Who takes files from others asks `check_labelled` for all that is wrong with one; who trains asks `read_labelled` for
the examples. Both hold one line at a time, and nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

from hmi.errors import InvalidInput
from hmi.spec import TaskKind
from hmi.training.data.examples import (
    AnyExample,
    ChatExample,
    CompletionExample,
    Example,
    MultiLabelExample,
    PairExample,
    Span,
    TaggedExample,
)
from hmi.training.data.reader import LabelledLimits, Reader
from hmi.training.data.records import FileFormat, Problem
from hmi.training.data.tag_sets import tagger_labels, unknown_to

__all__ = [
    "MAX_PROBLEMS",
    "AnyExample",
    "ChatExample",
    "CheckedFile",
    "CompletionExample",
    "Example",
    "FileFormat",
    "LabelledFile",
    "LabelledLimits",
    "MultiLabelExample",
    "PairExample",
    "Problem",
    "Span",
    "TaggedExample",
    "check_labelled",
    "read_labelled",
]

MAX_PROBLEMS = 100
"""As many are reported; the file is read no further."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """What a file holds.

    Attributes:
        kind: None where no example could be read.
        characters: Of all texts.
        labels: How often each occurs, in the order of their first occurrence.
        tags, names: Which of them are of words, and which of parts of texts.
        problems: At most `MAX_PROBLEMS`; without any, the file can be trained on.
        warnings: What is harmless, but may not be meant.
    """

    kind: TaskKind | None
    examples: int
    characters: int
    labels: Mapping[str, int]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    tags: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    def unknown_to(self, learnt: CheckedFile) -> list[str]:
        """The labels here that a model does not have which learns from that sound file, in alphabetical order."""
        if self.kind is TaskKind.TOKENS:
            return unknown_to(tagger_labels(learnt.tags, learnt.names), self.tags, self.names)
        return sorted(set(self.labels) - set(learnt.labels))


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """A file that can be trained on, in the order of its lines."""

    kind: TaskKind
    examples: tuple[AnyExample, ...]
    warnings: tuple[str, ...]


def check_labelled(
    stream: IO[bytes],
    form: FileFormat = FileFormat.JSONL,
    *,
    kind: TaskKind | None = None,
    judging: bool = False,
    limits: LabelledLimits = LabelledLimits(),  # noqa: B008 - frozen
    text_field: str = "text",
    label_field: str = "label",
    each: Callable[[AnyExample], None] = lambda example: None,
) -> CheckedFile:
    """Read a file to its end, or to its hundredth problem, and keep nothing of it but counts.

    Args:
        kind: The task; None finds it from the fields.
        judging: The file only judges, so one label is enough.
        text_field, label_field: What `text` and `label` are called in the file.
        each: Called with every example; an `InvalidInput` that it raises is a problem of the example's line.
    """
    reader = Reader(kind, limits, judging, text_field, label_field, each)
    problems: list[Problem] = []
    for found in reader.read(stream, form):
        if isinstance(found, Problem):
            problems.append(found)
            if len(problems) == MAX_PROBLEMS:
                break
    return CheckedFile(
        reader.kind,
        reader.examples,
        reader.characters,
        dict(reader.labels),
        tuple(problems),
        reader.warnings(),
        frozenset(reader.tags),
        frozenset(reader.names),
    )


def read_labelled(
    stream: IO[bytes],
    form: FileFormat = FileFormat.JSONL,
    *,
    kind: TaskKind | None = None,
    judging: bool = False,
    limits: LabelledLimits = LabelledLimits(),  # noqa: B008 - frozen
    text_field: str = "text",
    label_field: str = "label",
    name: str = "",
    each: Callable[[AnyExample], None] = lambda example: None,
) -> LabelledFile:
    """The examples of a file; arguments as of `check_labelled`.

    Raises `InvalidInput` for the first problem, naming the file by `name` and the line.
    """
    reader = Reader(kind, limits, judging, text_field, label_field, each)
    examples: list[AnyExample] = []
    for found in reader.read(stream, form):
        if isinstance(found, Problem):
            raise found.error(name)
        examples.append(found)
    if reader.kind is None:
        raise InvalidInput("there are no examples")
    return LabelledFile(reader.kind, tuple(examples), reader.warnings())
