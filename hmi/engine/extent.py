"""How few tokens a text can have, told without encoding it: enough to refuse what is far too long."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from hmi.engine.vocabulary import LETTERS, members

__all__ = ["TokenLengthBound", "token_length_bound"]

_SPLITTERS = {"ByteLevel", "Digits", "Metaspace", "Split"}  # that drop nothing, unless `Split` is told to


@dataclass(frozen=True, slots=True)
class TokenLengthBound:
    """Of a tokenizer whose every token stands for a bounded piece of text.

    Attributes:
        longest: Bytes of the longest piece.
        dropped: Bytes that it has no token for, and passes over.
    """

    longest: int
    dropped: bytes

    def exceeds(self, text: str, tokens: int) -> bool:
        """Whether the text surely has more tokens; False leaves it open."""
        most = tokens * self.longest
        if 4 * len(text) <= most:  # no character has more bytes
            return False
        return len(text.encode(errors="ignore").translate(None, self.dropped)) > most


def token_length_bound(tokenizer: Tokenizer) -> TokenLengthBound | None:
    """None where nothing can be said: a tokenizer with an unknown token makes one of a word of any length, and others
    shorten a text before they cut it."""
    form = json.loads(tokenizer.to_str())
    model = form["model"]
    splitters = members(form["pre_tokenizer"], "pretokenizers")
    if (
        model["type"] != "BPE"
        or any(each["lstrip"] or each["rstrip"] for each in form["added_tokens"])
        or not all(_keeps_length(each) for each in members(form["normalizer"], "normalizers"))
        or any(each["type"] not in _SPLITTERS or each.get("behavior") == "Removed" for each in splitters)
    ):
        return None
    vocabulary = model["vocab"]
    added = max((len(each["content"].encode()) for each in form["added_tokens"]), default=1)
    if any(each["type"] == "ByteLevel" for each in splitters) and model["unk_token"] is None:
        known = {letter for letter in vocabulary if len(letter) == 1}
        dropped = bytes(byte for byte, letter in LETTERS.items() if letter not in known)
        return TokenLengthBound(max(added, *map(len, vocabulary)), dropped)  # a letter of a piece is a byte of the text
    if model["byte_fallback"] and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256)):
        return TokenLengthBound(max(added, *(len(piece.encode()) for piece in vocabulary)), b"")
    return None


def _keeps_length(normalizer: Mapping[str, Any]) -> bool:
    if normalizer["type"] == "Replace":
        replaced = normalizer["pattern"].get("String")
        return replaced is not None and len(replaced.encode()) <= len(normalizer["content"].encode())
    return bool(normalizer["type"] == "Prepend")
