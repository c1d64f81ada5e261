"""Labelled text that a command reads from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hmi.errors import InvalidInput

if TYPE_CHECKING:
    from hmi.models.text import ChatTemplate
    from hmi.spec import TaskKind
    from hmi.training.data import AnyExample, LabelledFile

__all__ = ["read_labelled_file"]


def read_labelled_file(
    path: Path,
    task: TaskKind | None,
    text_field: str,
    label_field: str,
    *,
    judging: bool,
    chat: ChatTemplate | None = None,
) -> LabelledFile:
    """Its examples, for `task` or for what the fields are for.

    Args:
        chat: The base model's template, which must take every conversation.

    Raises `InvalidInput` naming the file and the line.
    """
    from hmi.training.data import ChatExample, FileFormat, read_labelled

    def take(example: AnyExample) -> None:
        if chat is not None and isinstance(example, ChatExample):
            chat.render(example.messages)

    try:
        with path.open("rb") as stream:
            return read_labelled(
                stream,
                FileFormat.of(path.name),
                kind=task,
                judging=judging,
                text_field=text_field,
                label_field=label_field,
                name=str(path),
                each=take,
            )
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
