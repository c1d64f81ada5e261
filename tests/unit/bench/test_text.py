from __future__ import annotations

from hmi.bench import random_texts
from hmi.bench.text import word_pieces


def test_texts_have_the_lengths_that_were_asked_for_and_no_unknown_word() -> None:
    encoded = word_pieces().encode_batch(random_texts(400, shortest=8, longest=64))
    lengths = [len(each) for each in encoded]
    assert (min(lengths), max(lengths)) == (8, 64)
    assert 25 < sum(lengths) / len(lengths) < 31
    assert all("[UNK]" not in each.tokens for each in encoded)


def test_some_words_are_two_pieces() -> None:
    (encoded,) = word_pieces().encode_batch(random_texts(1, shortest=64))
    assert encoded.tokens[0] == "[CLS]"
    assert encoded.tokens[-1] == "[SEP]"
    assert any(token.startswith("##") for token in encoded.tokens)


def test_texts_are_the_same_in_every_run() -> None:
    assert random_texts(20) == random_texts(20)
    assert random_texts(20) != random_texts(20, seed=1)
