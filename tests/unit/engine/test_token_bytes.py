"""What tokens stand for: those of a text are its bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders

from hmi.engine.vocabulary import read_token_bytes
from tests.tiny import tiny_tokenizer
from tests.vocabularies import END, byte_level, sentencepiece

BYTE_LEVEL, SENTENCEPIECE = byte_level(), sentencepiece()
TABLES = {id(each): read_token_bytes(each) for each in (BYTE_LEVEL, SENTENCEPIECE)}


def bytes_of(tokenizer: Tokenizer, text: str) -> bytes:
    pieces = TABLES[id(tokenizer)]
    return b"".join(pieces.of(token) for token in tokenizer.encode(text, add_special_tokens=False).ids)


@given(st.text(max_size=30))
def test_pieces_of_a_text_are_its_bytes(text: str) -> None:
    assert bytes_of(BYTE_LEVEL, text) == text.encode()
    if text:
        assert bytes_of(SENTENCEPIECE, text) == b" " + text.replace("▁", " ").encode()


def test_part_of_a_character_has_its_own_bytes() -> None:
    for tokenizer, count in ((BYTE_LEVEL, 3), (SENTENCEPIECE, 4)):
        ids = tokenizer.encode("🦜", add_special_tokens=False).ids[-count:]
        parts = [TABLES[id(tokenizer)].of(token) for token in ids]
        assert b"".join(parts) == "🦜".encode()
        assert all(parts)


def test_tokens_that_were_added_are_as_they_stand() -> None:
    tokenizer = byte_level()
    added = ["<é a>", "Ġ", "  "]  # the second is one of the alphabet: added or not, a decoder reads it as a space
    tokenizer.add_tokens([AddedToken(each) for each in added])
    pieces = read_token_bytes(tokenizer)
    for text, expected in zip(added, ("<é a>", " ", "  "), strict=True):
        token = tokenizer.token_to_id(text)
        assert token is not None
        assert pieces.of(token).decode() == expected == tokenizer.decode([token])
    assert pieces.special == {0, END}
    assert pieces.of(END) == b"</s>"


@pytest.mark.parametrize("token", [-1, 100, 2**31])
def test_an_id_without_a_token_has_no_bytes(token: int) -> None:
    assert read_token_bytes(tiny_tokenizer()).of(token) == b""


def test_a_tokenizer_of_another_kind_gives_its_tokens_own_strings() -> None:
    tokenizer = tiny_tokenizer()
    assert read_token_bytes(tokenizer).of(5) == b"w0"
    tokenizer.decoder = decoders.Metaspace(replacement="w")
    assert read_token_bytes(tokenizer).of(5) == b" 0"
