"""What each token of a vocabulary stands for, as bytes, by the rules of the tokenizer's decoder.

Decoding a token alone does not tell: a decoder of sentencepiece's kind strips the space before what comes first, and a
part of a character has no text. TokenBytes keep both, so those of a text, one after the other, are its bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from hmi.engine.vocabulary import LETTERS, members
from hmi.items import TokenBytes

__all__ = ["read_pieces"]

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def read_pieces(tokenizer: Tokenizer) -> TokenBytes:
    """Of a tokenizer whose decoder knows no bytes and no sign for spaces, a token's own string."""
    steps = members(None if tokenizer.decoder is None else json.loads(tokenizer.decoder.__getstate__()), "decoders")
    to_bytes = _from_alphabet if any(each["type"] == "ByteLevel" for each in steps) else _reader(steps)
    added = tokenizer.get_added_tokens_decoder()
    texts = {token: text for text, token in tokenizer.get_vocab(with_added_tokens=False).items()}
    texts |= {token: each.content for token, each in added.items()}
    pieces = [to_bytes(texts[token]) if token in texts else b"" for token in range(max(texts, default=-1) + 1)]
    return TokenBytes(
        blob=b"".join(pieces),
        starts=np.cumsum([0, *map(len, pieces)], dtype=np.int32),
        special=frozenset(token for token, each in added.items() if each.special),
    )


def _reader(steps: Sequence[Mapping[str, Any]]) -> Callable[[str], bytes]:
    """Of sentencepiece's kind: a sign stands for a space, and what has no token of its own is written byte by byte.
    What a decoder does to a text as a whole, as stripping its first space, is no matter of a piece."""
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


# From letters to bytes; what is no letter, to what is no byte.
_ALPHABET = dict.fromkeys(range(0x100), 0xFFFF) | {ord(letter): byte for byte, letter in LETTERS.items()}


def _from_alphabet(piece: str) -> bytes:
    """Of byte-level BPE; a token that was added as it stands is no string of the alphabet."""
    try:
        return piece.translate(_ALPHABET).encode("latin-1")
    except UnicodeEncodeError:
        return piece.encode("utf-8", "replace")
