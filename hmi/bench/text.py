"""Random texts of made-up words, and a tokenizer that works as hard on them as BERT's does on real text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SYLLABLES = [consonant + vowel for consonant in "bcdfghjklmnprstvwxz" for vowel in "aeiou"]
# All stems have four letters, so the longest match that WordPiece looks for is the piece that was meant.
_STEMS = [first + second for first, second in itertools.product(_SYLLABLES, repeat=2)]
_ENDED_SHARE = 0.3  # of words: a stem and an ending, two pieces

VOCABULARY = (*_SPECIAL, *_STEMS, *(f"##{each}" for each in _SYLLABLES))  # a piece's id is its place


def word_pieces() -> Tokenizer:
    """Lower-cases, splits and matches pieces as BERT's tokenizer, between [CLS] and [SEP]."""
    tokenizer = Tokenizer(WordPiece({piece: number for number, piece in enumerate(VOCABULARY)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, VOCABULARY.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def random_texts(count: int, *, shortest: int = 8, longest: int = 64, seed: int = 0) -> list[str]:
    """Texts of `shortest` to `longest` tokens, special ones included, 28 on average; words follow Zipf's law."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.gamma(4, 7, count), shortest, longest).astype(int)
    stems = _zipf_stems(int(lengths.sum()), rng)
    return [_text(length - 2, stems, rng) for length in lengths.tolist()]


def _zipf_stems(count: int, rng: np.random.Generator) -> Iterator[str]:
    weights = 1 / np.arange(1, len(_STEMS) + 1)
    frequent_first = rng.permutation(_STEMS).tolist()
    ranks = rng.choice(len(_STEMS), count, p=weights / weights.sum())
    return (frequent_first[rank] for rank in ranks.tolist())


def _text(pieces: int, stems: Iterator[str], rng: np.random.Generator) -> str:
    """Words of exactly so many pieces together."""
    words: list[str] = []
    while pieces:
        ended = pieces >= 2 and rng.random() < _ENDED_SHARE
        words.append(next(stems) + (_SYLLABLES[rng.integers(len(_SYLLABLES))] if ended else ""))
        pieces -= 1 + ended
    return " ".join(words)
