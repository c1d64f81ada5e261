"""Markdown with other people's words in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["escape_markdown", "markdown_table"]


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(escape_markdown(str(cell)) for cell in line)} |" for line in lines)


def escape_markdown(text: str) -> str:
    """A name of somebody else's, unable to break out of a table or to become markup."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return "".join(f"\\{character}" if character in "\\`*_{}[]<>|#" else character for character in shown)
