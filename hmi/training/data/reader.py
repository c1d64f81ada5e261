"""From records to examples of one task, with checks that need the whole file: labels, repetitions, limits."""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, TypedDict

from hmi.errors import InvalidInput
from hmi.spec import TaskKind
from hmi.training.data.examples import AnyExample, PairExample, TaggedExample, labels_in, texts_of
from hmi.training.data.records import FileFormat, Problem, Record, read_records
from hmi.training.data.shapes import Shape, shapes_with
from hmi.training.data.tag_sets import tagger_labels

_MOST_NAMES = 10  # of fields in a message


@dataclass(frozen=True, slots=True)
class LabelledLimits:
    """How much one file may hold."""

    max_line_bytes: int = 1024**2  # of the longest line without its line feed, and of the longest CSV record
    max_examples: int = 200_000
    max_labels: int = 1000  # distinct ones; of words, distinct tags


class ReadOptions(TypedDict, total=False):
    """How a file is read."""

    kind: TaskKind | None  # the task; by default the fields of the first example decide
    limits: LabelledLimits
    dev: bool  # the file is only for evaluation, so one label is enough
    text_field: str  # name of the field `text` in the file
    label_field: str  # name of the field `label`
    # Called with every example; an `InvalidInput` that it raises is a problem of the example's line.
    each: Callable[[AnyExample], None]


class Reader:
    """Reads one file; it keeps counts, and a few bytes for each example. The arguments are `ReadOptions`."""

    def __init__(
        self,
        kind: TaskKind | None = None,
        limits: LabelledLimits = LabelledLimits(),
        dev: bool = False,
        text_field: str = "text",
        label_field: str = "label",
        each: Callable[[AnyExample], None] = lambda example: None,
    ) -> None:
        self.kind = kind
        self.examples = 0
        self.characters = 0
        self.labels: Counter[str] = Counter()
        self.tags: set[str] = set()  # labels of words
        self.names: set[str] = set()  # labels of entities
        self._limits = limits
        self._dev = dev
        self._each = each
        self._shapes = shapes_with(text_field, label_field)
        self._first_line = 0
        self._ignored: set[str] = set()  # fields
        self._seen: dict[int, tuple[int, int]] = {}  # by a text's hash: its line, and its labels' hash
        self._conflict: tuple[int, int] | None = None
        self._conflicts = 0
        self._candidates: set[str] = set()  # up to two positive or negative texts

    def read(self, stream: IO[bytes], form: FileFormat) -> Iterator[AnyExample | Problem]:
        """Examples and problems in the order of the file; it ends after too many examples or labels."""
        sound = True
        for record in read_records(stream, form, self._limits.max_line_bytes):
            found = record if isinstance(record, Problem) else self._read(record)
            sound = sound and not isinstance(found, Problem)
            yield found
            if self.examples > self._limits.max_examples or len(self.labels) > self._limits.max_labels:
                return
        if sound and (problem := self._find_lack()):
            yield problem

    def warnings(self) -> tuple[str, ...]:
        """Harmless peculiarities, which may not be intended."""
        found = []
        if self._ignored:
            found.append(f"fields that are not read: {', '.join(sorted(self._ignored))}")
        for names in _alike(self.labels):
            found.append(f"labels that differ by no more than capitals or the form of characters: {_quoted(names)}")
        if self._conflict is not None:
            first, again = self._conflict
            found.append(
                f"{self._conflicts} examples repeat a text with another label, line {again} that of line {first} first"
            )
        return tuple(found)

    def _read(self, record: Record) -> AnyExample | Problem:
        try:
            shape = self._shape(record)
            example = shape.parse(record.fields)
            self._count(example, record.line)
            self._each(example)
        except InvalidInput as error:
            return Problem(record.line, error.message, error.code)
        if self.kind is None or not self._first_line:
            self.kind, self._first_line = shape.kind, record.line
        for name in record.fields.keys() - {*shape.required, *shape.optional}:
            if len(self._ignored) < _MOST_NAMES:
                self._ignored.add(_shown(name))
        return example

    def _shape(self, record: Record) -> Shape:
        """The shape of the record. Raises `InvalidInput` unless there is exactly one."""
        there = record.fields.keys()
        shapes = [shape for shape in self._shapes if not shape.explicit or shape.kind is self.kind]
        fitting = [shape for shape in shapes if there >= set(shape.required)]
        ours = [shape for shape in fitting if self.kind in (None, shape.kind)]
        # Of two shapes of one task the one that requires more is meant: a prompt beside a text.
        ours = [one for one in ours if not any(set(one.required) < set(other.required) for other in ours)]
        if len(ours) == 1:
            return ours[0]
        if ours:
            several = " or ".join(_listed(shape.required) for shape in ours)
            raise InvalidInput(f"it could be read as {several}; leave out what is not meant", code="ambiguous_fields")
        if fitting and self._first_line:
            message = f"it is for {fitting[0].kind}, and line {self._first_line} was for {self.kind}; "
            raise InvalidInput(f"{message}one file is for one task", code="mixed_tasks")
        expected = "; or ".join(_listed(shape.required) for shape in shapes if self.kind in (None, shape.kind))
        raise InvalidInput(f"its fields are {_listed(there) or 'none'}; expected are {expected}", code="wrong_fields")

    def _count(self, example: AnyExample, line: int) -> None:
        """Raises `InvalidInput` if the file exceeds a limit."""
        self.examples += 1
        if self.examples > self._limits.max_examples:
            raise InvalidInput(f"there are more than {self._limits.max_examples} examples", code="too_many_examples")
        self.characters += sum(map(len, texts_of(example)))
        labels = labels_in(example)
        self.labels.update(labels)
        if len(self.labels) > self._limits.max_labels:
            raise InvalidInput(
                f"there are more than {self._limits.max_labels} different labels", code="too_many_labels"
            )
        if isinstance(example, TaggedExample):
            (self.names if example.entities else self.tags).update(labels)
        if isinstance(example, PairExample) and len(self._candidates) < 2:
            self._candidates.update(texts_of(example)[1:])
        text, own = _hash(example.text), _hash(repr(labels))
        first, before = self._seen.setdefault(text, (line, own))
        if before != own:
            self._conflicts += 1
            self._conflict = self._conflict or (first, line)

    def _find_lack(self) -> Problem | None:
        """What a file without a bad line may lack for training."""
        if not self.examples:
            return Problem(None, "there are no examples", "empty_file")
        if self._dev:
            return None
        if self.kind is TaskKind.CLASSIFICATION and len(self.labels) < 2:
            only = f"from here on, all {self.examples} examples have the label {next(iter(self.labels))!r}"
            return Problem(self._first_line, f"{only}; a classifier needs at least two labels", "one_label")
        if self.kind is TaskKind.EMBEDDING and len(self._candidates) < 2:
            only = f"from here on, all {self.examples} examples have one positive text"
            return Problem(self._first_line, f"{only}; embeddings need at least two texts to tell apart", "one_text")
        if self.kind is TaskKind.MULTI_LABEL and not self.labels:
            only = f"from here on, none of {self.examples} examples has a label"
            return Problem(self._first_line, only, "no_label")
        if self.kind is TaskKind.TOKENS:
            try:
                tagger_labels(self.tags, self.names)
            except InvalidInput as error:
                return Problem(self._first_line, f"from here on: {error.message}", "word_labels")
        return None


def _alike(labels: Iterable[str]) -> list[list[str]]:
    """Groups of labels that a person can hardly distinguish, at most ten."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        groups[unicodedata.normalize("NFC", unicodedata.normalize("NFC", label).casefold())].append(label)
    return [group for group in groups.values() if len(group) > 1][:_MOST_NAMES]


def _quoted(names: Iterable[str]) -> str:
    """As `_listed`, in ASCII, since forms of one character look alike."""
    return ", ".join(ascii(name[:40]) for name in itertools.islice(names, _MOST_NAMES))


def _listed(names: Iterable[str]) -> str:
    some = [_shown(name) for name in itertools.islice(names, _MOST_NAMES + 1)]
    return ", ".join([*some[:_MOST_NAMES], "..."] if len(some) > _MOST_NAMES else some)


def _shown(name: str) -> str:
    """A field's name from a file, cut and without control characters."""
    return name[:40] if name.isprintable() else repr(name[:40])


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
