"""Text that a person hands over in files, as plain lines."""

from __future__ import annotations

from pathlib import Path

from hmi.errors import InvalidInput

__all__ = ["read_lines"]


def read_lines(path: Path) -> list[str]:
    """The lines that are not blank. Raises `InvalidInput`."""
    return [line for line in _text_of(path).splitlines() if line.strip()]


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
