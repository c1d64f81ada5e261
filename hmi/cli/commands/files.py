"""The files that a command reads, and the folders that it makes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import typer

from hmi.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from hmi.adapters import Adapter
    from hmi.models.text import ChatTemplate
    from hmi.spec import TaskKind
    from hmi.training.data import AnyExample, LabelledFile

LabelledReader: TypeAlias = "Callable[[Path, TaskKind | None, bool], LabelledFile]"


def require_new(out: Path) -> None:
    """Check a folder that will be made at the end.

    Raises `Conflict` if it exists, `InvalidInput` if it cannot be made.
    """
    require_writable(out)
    if out.exists():
        raise Conflict(f"{out} exists already; remove it or choose another folder")


def require_writable(out: Path) -> None:
    """Raise `InvalidInput` if `out`, or a missing folder above it, cannot be made."""
    try:
        out.exists()  # raises for a name that is too long
        above = next(folder for folder in out.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise InvalidInput(f"cannot write {out}: {error.strerror}") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text that are not blank. Raises `InvalidInput`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    return [line for line in text.splitlines() if line.strip()]


def read_own_adapter(folder: Path) -> Adapter:
    """The adapter or delta in a folder that `hmi` made. Raises `InvalidInput`, `AdapterRefused`."""
    from hmi.adapters.formats import FILE_NAME, load_adapter

    try:
        return load_adapter(folder / FILE_NAME)
    except OSError as error:
        raise InvalidInput(f"cannot read {folder / FILE_NAME}: {error.strerror}") from error


def labelled_reader(text_field: str, label_field: str, chat: ChatTemplate | None = None) -> LabelledReader:
    """A function that reads the labelled text of a file.

    It takes the file, the task (None: what the fields are for) and whether the examples evaluate a training. It prints
    the file's warnings to standard error, and raises `InvalidInput` naming the file and the line. `chat`, the base
    model's template, must accept every conversation.
    """
    from hmi.training.data import ChatExample, FileFormat, read_labelled

    def check(example: AnyExample) -> None:
        if chat is not None and isinstance(example, ChatExample):
            chat.render(example.messages)

    def read(path: Path, task: TaskKind | None, judging: bool) -> LabelledFile:
        try:
            with path.open("rb") as stream:
                found = read_labelled(
                    stream,
                    FileFormat.of(path.name),
                    kind=task,
                    dev=judging,
                    text_field=text_field,
                    label_field=label_field,
                    name=str(path),
                    each=check,
                )
        except OSError as error:
            raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
        for warning in found.warnings:
            typer.echo(f"{path}: {warning}", err=True)
        return found

    return read
