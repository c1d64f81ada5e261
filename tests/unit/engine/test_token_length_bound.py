"""The bound on a text's tokens is never too low."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE

from hmi.engine.vocabulary import BYTE_LETTERS, token_length_bound
from tests.tiny import tiny_tokenizer

CORPUS = ["the quick brown fox jumps over the lazy dog", "    spaces and ümläuts \u4e2d\u6587", "the the the fox"] * 5


def byte_level(alphabet: list[str]) -> Tokenizer:
    """As GPT-2's; of bytes that the alphabet and the corpus lack it has no token."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def sentence_piece() -> Tokenizer:
    """As Llama's, with bytes for what it does not know."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for piece in ("\u2581", "t", "h", "e", "\u2581t", "he", "\u2581the"):
        vocabulary[piece] = len(vocabulary)
    merges = [("\u2581", "t"), ("h", "e"), ("\u2581t", "he")]
    tokenizer = Tokenizer(BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True, unk_token="<0x00>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.ByteFallback()
    return tokenizer


FULL = byte_level(pre_tokenizers.ByteLevel.alphabet())
SPARSE = byte_level([])
KNOWN = [FULL, SPARSE, sentence_piece()]


@given(st.sampled_from(range(len(KNOWN))), st.text(max_size=60) | st.text("the fox\n 1\u2581", max_size=60))
def test_the_bound_never_exceeds_the_tokens_of_a_text(which: int, text: str) -> None:
    bound = token_length_bound(KNOWN[which])
    assert bound is not None
    tokens = len(KNOWN[which].encode(text, add_special_tokens=False).ids)
    assert not bound.exceeds(text, tokens)


@pytest.mark.parametrize("which", range(len(KNOWN)))
def test_a_far_too_long_text_exceeds_the_bound(which: int) -> None:
    bound = token_length_bound(KNOWN[which])
    assert bound is not None
    assert bound.exceeds("the fox " * 1000, 100)


def test_bytes_without_a_token_do_not_count() -> None:
    bound = token_length_bound(SPARSE)
    assert bound is not None
    assert SPARSE.encode("\x06" * 1000).ids == []
    assert not bound.exceeds("\x06" * 1000, 1)


def test_letters_of_bytes_are_those_of_tokenizers() -> None:
    assert set(BYTE_LETTERS.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ((piece, _),) = tokenizer.pre_tokenizer.pre_tokenize_str("\x00 a\u00fc")
    assert piece == "".join(BYTE_LETTERS[byte] for byte in "\x00 a\u00fc".encode())


def test_there_is_no_bound_for_tokenizers_that_may_shorten_a_text(tmp_path: Path) -> None:
    assert token_length_bound(tiny_tokenizer()) is None
    shortening = byte_level([])
    shortening.normalizer = normalizers.Strip()
    assert token_length_bound(shortening) is None
    dropping = byte_level([])
    dropping.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    assert token_length_bound(dropping) is None
    swallowing = byte_level([])
    swallowing.add_tokens([AddedToken("<mask>", lstrip=True)])
    assert token_length_bound(swallowing) is None
    guessing = Tokenizer(BPE({"a": 0, "?": 1}, [], unk_token="?", fuse_unk=True))
    assert token_length_bound(guessing) is None
