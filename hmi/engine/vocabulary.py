"""What a tokenizer's file says about its tokens: the bytes of each, and how few of them a text can have.

Decoding a token alone does not give its bytes: decoders of sentencepiece's kind strip the space before the first token,
and a part of a character has no text. `TokenBytes` keep both, so those of a text, one after the other, are its bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from hmi.items import TokenBytes

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_KEEPING = {"ByteLevel", "Digits", "Metaspace", "Split"}  # pre-tokenizers that drop nothing, but for some `Split`s


def _byte_letters() -> dict[int, str]:
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(0x100 + place) for place, byte in enumerate(others)}


BYTE_LETTERS = _byte_letters()
"""The letter that stands for each byte in the tokens of a byte-level vocabulary, since GPT-2."""

# From letters to bytes; any other letter becomes one that is no byte.
_TO_BYTES = dict.fromkeys(range(0x100), 0xFFFF) | {ord(letter): byte for byte, letter in BYTE_LETTERS.items()}


def read_token_bytes(tokenizer: Tokenizer) -> TokenBytes:
    """The bytes of each token, by the rules of the tokenizer's decoder; of others than sentencepiece's and byte-level
    ones, the token's own string."""
    steps = _components(None if tokenizer.decoder is None else json.loads(tokenizer.decoder.__getstate__()), "decoders")
    to_bytes = _from_letters if any(each["type"] == "ByteLevel" for each in steps) else _sentencepiece_reader(steps)
    added = tokenizer.get_added_tokens_decoder()
    texts = {token: text for text, token in tokenizer.get_vocab(with_added_tokens=False).items()}
    texts |= {token: each.content for token, each in added.items()}
    pieces = [to_bytes(texts[token]) if token in texts else b"" for token in range(max(texts, default=-1) + 1)]
    return TokenBytes(
        blob=b"".join(pieces),
        starts=np.cumsum([0, *map(len, pieces)], dtype=np.int32),
        special=frozenset(token for token, each in added.items() if each.special),
    )


@dataclass(frozen=True, slots=True)
class TokenLengthBound:
    """How much text the tokens of a vocabulary cover at most: enough to refuse a far too long text unencoded."""

    longest: int  # bytes of the longest token
    dropped: bytes  # bytes that the vocabulary has no token for, and passes over

    def exceeds(self, text: str, tokens: int) -> bool:
        """Whether the text surely has more tokens; False leaves it open."""
        most = tokens * self.longest
        if 4 * len(text) <= most:  # no character has more bytes
            return False
        return len(text.encode(errors="ignore").translate(None, self.dropped)) > most


def token_length_bound(tokenizer: Tokenizer) -> TokenLengthBound | None:
    """None where there is no bound: a tokenizer with an unknown token makes one of a word of any length, and others
    shorten a text before they split it."""
    form = json.loads(tokenizer.to_str())
    model = form["model"]
    splitters = _components(form["pre_tokenizer"], "pretokenizers")
    if (
        model["type"] != "BPE"
        or any(each["lstrip"] or each["rstrip"] for each in form["added_tokens"])
        or not all(_keeps_length(each) for each in _components(form["normalizer"], "normalizers"))
        or any(each["type"] not in _KEEPING or each.get("behavior") == "Removed" for each in splitters)
    ):
        return None
    vocabulary = model["vocab"]
    added = max((len(each["content"].encode()) for each in form["added_tokens"]), default=1)
    if any(each["type"] == "ByteLevel" for each in splitters) and model["unk_token"] is None:
        known = {letter for letter in vocabulary if len(letter) == 1}
        dropped = bytes(byte for byte, letter in BYTE_LETTERS.items() if letter not in known)
        return TokenLengthBound(max(added, *map(len, vocabulary)), dropped)  # a token's letter is a byte of the text
    if model["byte_fallback"] and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256)):
        return TokenLengthBound(max(added, *(len(piece.encode()) for piece in vocabulary)), b"")
    return None


def _keeps_length(normalizer: Mapping[str, Any]) -> bool:
    if normalizer["type"] == "Replace":
        replaced = normalizer["pattern"].get("String")
        return replaced is not None and len(replaced.encode()) <= len(normalizer["content"].encode())
    return bool(normalizer["type"] == "Prepend")


def _components(part: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """The steps of a part of a tokenizer, in order; `name` is the key of the list in a sequence."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [step for each in part[name] for step in _components(each, name)]


def _sentencepiece_reader(steps: Sequence[Mapping[str, Any]]) -> Callable[[str], bytes]:
    """A sign stands for a space, and what has no token of its own is written byte by byte. What a decoder does to a
    text as a whole, such as stripping its first space, does not concern a token."""
    has_bytes = any(each["type"] == "ByteFallback" for each in steps)
    signs = [(each["replacement"], " ") for each in steps if each["type"] == "Metaspace"]
    signs += [
        (each["pattern"]["String"], each["content"])
        for each in steps
        if each["type"] == "Replace" and "String" in each["pattern"]
    ]

    def to_bytes(piece: str) -> bytes:
        if has_bytes and (byte := _BYTE.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        for sign, content in signs:
            piece = piece.replace(sign, content)
        return piece.encode("utf-8", "replace")

    return to_bytes


def _from_letters(piece: str) -> bytes:
    """Of byte-level BPE; a token that was added may be no string of the letters."""
    try:
        return piece.translate(_TO_BYTES).encode("latin-1")
    except UnicodeEncodeError:
        return piece.encode("utf-8", "replace")
