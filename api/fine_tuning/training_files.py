"""Training files, read to their ends before a job starts: problems by line, and the number of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import Tokenizer

from api.files import open_content
from api.services import Services
from hmi.catalog import File
from hmi.errors import InvalidInput
from hmi.spec import TaskKind
from hmi.training.data import AnyExample, ChatExample, CheckedFile, FileFormat, LabelledLimits, check_labelled, texts_of

# Texts and characters that are encoded at once: an encoding takes a hundred bytes and more for each character.
_CHUNK = 1000
_CHUNK_CHARACTERS = 2**18
_PIECE = 2**16  # characters; longer texts are encoded piece by piece
_MAX_PROBLEMS = 20  # in one message


@dataclass(frozen=True, slots=True)
class TrainingFile:
    """A file without problems."""

    form: FileFormat
    checked: CheckedFile


class TokenCounter:
    """Counts tokens as the base model sees them: with special tokens, cut at `max_tokens`."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._waiting: list[str] = []
        self._characters = 0  # of the waiting texts
        self._counted = 0
        self.has_chats = False

    def add(self, example: AnyExample) -> None:
        self.has_chats |= isinstance(example, ChatExample)
        # A chat is read as one text.
        for text in ["\n".join(texts_of(example))] if isinstance(example, ChatExample) else texts_of(example):
            if len(text) > _PIECE:
                self._counted += self._tokens_of_long(text)
                continue
            self._waiting.append(text)
            self._characters += len(text)
            if len(self._waiting) >= _CHUNK or self._characters >= _CHUNK_CHARACTERS:
                self._count()

    @property
    def total(self) -> int:
        self._count()
        return self._counted

    def _count(self) -> None:
        self._counted += sum(len(each.ids) for each in self._tokenizer.encode_batch_fast(self._waiting))
        self._waiting, self._characters = [], 0

    def _tokens_of_long(self, text: str) -> int:
        """Pieces end between words where possible, so the count is exact unless a word is longer than a piece. No piece
        is encoded after `max_tokens` are reached."""
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        count, start = special, 0
        while start < len(text) and count < self._max_tokens:
            end = len(text) if len(text) - start <= _PIECE else text.rfind(" ", start + 1, start + _PIECE)
            end = end if end > 0 else start + _PIECE
            count += len(self._tokenizer.encode(text[start:end]).ids) - special
            start = end
        return min(count, self._max_tokens)


def check_file(
    services: Services,
    file: File,
    param: str,
    take: Callable[[AnyExample], None],
    *,
    kind: TaskKind | None = None,
    judged: CheckedFile | None = None,
) -> TrainingFile:
    """Read the whole file, which the request's field `param` names.

    Args:
        take: Called with every example; an `InvalidInput` that it raises is a problem of the example's line.
        kind: The task; None finds it from the fields.
        judged: For a validation file the training file, which must have its labels.

    Raises: `InvalidInput` with the first problems and their lines; `Corrupt` where the content is lost.
    """
    settings = services.settings
    if file.bytes > settings.max_training_file_bytes:
        message = f"the file is {file.bytes} bytes long; at most {settings.max_training_file_bytes} can be trained on"
        raise InvalidInput(message, code="training_file_too_large", param=param)
    form = FileFormat.of(file.filename)
    limits = LabelledLimits(max_line_bytes=settings.max_line_bytes, max_examples=settings.max_training_examples)
    with open_content(services, file) as stream:
        checked = check_labelled(stream, form, kind=kind, dev=judged is not None, limits=limits, each=take)
    if checked.problems:
        raise InvalidInput(_problems(checked), code="invalid_training_file", param=param)
    unknown = checked.unknown_to(judged) if judged else []
    if unknown:
        message = f"the file has a label that the training file lacks: {unknown[0][:80]!r}"
        raise InvalidInput(message, code="unknown_label", param=param)
    return TrainingFile(form, checked)


def _problems(checked: CheckedFile) -> str:
    shown = [each.error().message for each in checked.problems[:_MAX_PROBLEMS]]
    rest = len(checked.problems) - len(shown)
    return "the file cannot be trained on: " + "; ".join(shown) + (f"; and {rest} more" if rest else "")
