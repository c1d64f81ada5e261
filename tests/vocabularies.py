"""Small tokenizers of decoders' two kinds: byte-level BPE, and sentencepiece's with byte fallback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

__all__ = ["END", "byte_level", "sentencepiece"]

START, END = 0, 1
"""The ids of `<s>`, with which texts begin, and `</s>`: special tokens."""


def byte_level() -> Tokenizer:
    """GPT-2's kind: tokens of a byte, a few words, and the first two bytes of a bird."""
    tokenizer = _made(sorted(pre_tokenizers.ByteLevel.alphabet()), ["The", "Ġcapital", "Ġis", "ĠParis", "ðŁ"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentencepiece() -> Tokenizer:
    """Llama 2's kind: the first token of a text loses its space, and characters beyond ASCII are bytes."""
    letters = ["▁", *(chr(code) for code in range(0x21, 0x7F))]
    more = {"unk_token": "<unk>", "byte_fallback": True}
    bytewise = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = _made(letters, ["▁The", "▁capital", "▁is", "▁Paris"], ["<unk>", *bytewise], **more)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def _made(letters: Sequence[str], words: Sequence[str], others: Sequence[str] = (), **more: Any) -> Tokenizer:
    merges = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    merged = dict.fromkeys(first + second for first, second in merges)
    vocabulary = {piece: number for number, piece in enumerate(["<s>", "</s>", *others, *letters, *merged])}
    tokenizer = Tokenizer(BPE(vocabulary, list(dict.fromkeys(merges)), **more))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", START)])
    return tokenizer
