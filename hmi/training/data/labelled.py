"""Labelled text from files, checked line by line before any time is spent on training; one line is held at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Unpack

from hmi.errors import InvalidInput
from hmi.spec import TaskKind
from hmi.training.data.examples import AnyExample
from hmi.training.data.reader import Reader, ReadOptions
from hmi.training.data.records import FileFormat, Problem
from hmi.training.data.tag_sets import tagger_labels, unknown_to

MAX_PROBLEMS = 100  # in one file; the rest is not read


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """What a file contains."""

    kind: TaskKind | None  # None if no example could be read
    examples: int
    characters: int  # of all texts
    labels: Mapping[str, int]  # how often each occurs, in the order of their first occurrence
    problems: tuple[Problem, ...]  # at most `MAX_PROBLEMS`; a file without any can be trained on
    warnings: tuple[str, ...]  # harmless peculiarities, which may not be intended
    tags: frozenset[str] = frozenset()  # labels of words
    names: frozenset[str] = frozenset()  # labels of entities

    def unknown_to(self, train: CheckedFile) -> list[str]:
        """The labels here that a model trained on that file does not have, in alphabetical order."""
        if self.kind is TaskKind.TOKENS:
            return unknown_to(tagger_labels(train.tags, train.names), self.tags, self.names)
        return sorted(set(self.labels) - set(train.labels))


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """A file that can be trained on, in the order of its lines."""

    kind: TaskKind
    examples: tuple[AnyExample, ...]
    warnings: tuple[str, ...]


def check_labelled(
    stream: IO[bytes], form: FileFormat = FileFormat.JSONL, **options: Unpack[ReadOptions]
) -> CheckedFile:
    """List every problem of a file up to `MAX_PROBLEMS`; keep only counts of its examples."""
    reader = Reader(**options)
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
    stream: IO[bytes], form: FileFormat = FileFormat.JSONL, *, name: str = "", **options: Unpack[ReadOptions]
) -> LabelledFile:
    """The examples of a file. Raises `InvalidInput` for the first problem, with the file's name and the line."""
    reader = Reader(**options)
    examples: list[AnyExample] = []
    for found in reader.read(stream, form):
        if isinstance(found, Problem):
            raise found.error(name)
        examples.append(found)
    if reader.kind is None:
        raise InvalidInput("there are no examples")
    return LabelledFile(reader.kind, tuple(examples), reader.warnings())
