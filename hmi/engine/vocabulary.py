"""What tokenizers' files say of themselves, for those who look at pieces without encoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["LETTERS", "members"]


def _letters() -> dict[int, str]:
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(0x100 + place) for place, byte in enumerate(others)}


LETTERS = _letters()
"""The letter that stands for each byte in the pieces of a byte-level vocabulary, since GPT-2."""


def members(part: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """What a part of a tokenizer is made of, in the order of its work; `name` is that of the list in a sequence."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [member for each in part[name] for member in members(each, name)]
