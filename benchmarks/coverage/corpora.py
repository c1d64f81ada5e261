"""Text by domain, each text once, in an order that has nothing to do with what it says; and its windows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.glosses import fetch_glosses, read_glosses
from examples.data import DOMAINS, fetch_sentences, read_sentences
from hmi.knowledge import Keys, Parents, window_keys

ROOT = "general"


@dataclass(frozen=True, slots=True)
class Corpus:
    """`texts` by the domain that they are looked up in; parents may have no text of their own."""

    name: str
    parents: Parents
    texts: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of some texts, one text after the other."""

    keys: Keys  # uint64 [tokens]
    ends: NDArray[np.int64]  # [texts], where each text's windows end

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Tokenizer) -> Self:
        encoded = [each.ids for each in tokenizer.encode_batch_fast(list(texts))]
        lengths = np.array([len(ids) for ids in encoded], np.int64)
        ids = np.concatenate([np.array(each, np.int64) for each in encoded]) if encoded else np.empty(0, np.int64)
        return cls(window_keys(ids, lengths), np.cumsum(lengths))

    def __len__(self) -> int:
        return len(self.ends)

    def part(self, start: int, stop: int) -> Keys:
        """Windows of the texts `start` to `stop`, the last one left out."""
        first = self.ends[start - 1] if start else 0
        return self.keys[first : self.ends[stop - 1] if stop else 0]


class Tokenised:
    """Texts and their windows, tokenised once."""

    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer) -> None:
        windows = Windows.of(texts, tokenizer)
        self._keys = windows.keys
        starts = np.concatenate([[0], windows.ends[:-1]]).tolist()
        self._places = dict(zip(texts, zip(starts, windows.ends.tolist(), strict=True), strict=True))

    def keys(self, texts: Iterable[str]) -> Keys:
        """Windows of some of the texts, one text after the other."""
        parts = [self._keys[slice(*self._places[text])] for text in texts]
        return np.concatenate(parts) if parts else self._keys[:0]


def shuffled(texts: Iterable[str], salt: str = "") -> list[str]:
    """Each text once, by its hash: the same order everywhere."""
    return sorted(dict.fromkeys(texts), key=lambda text: hashlib.sha256(f"{salt}{text}".encode()).digest())


def four_domains(cache: Path) -> Corpus:
    """The demonstration's sentences, in its domains. Raises `HmiError` where they cannot be had."""
    archive, _ = fetch_sentences(cache)
    sentences = read_sentences(archive)
    texts = {domain: shuffled(each.text for each in sentences[domain]) for domain in sentences}
    return Corpus("four domains", {ROOT: None, **DOMAINS}, texts)


def glosses(cache: Path) -> Corpus:
    """WordNet's glosses: a domain for each subject, under one for each part of speech. Raises `HmiError`."""
    subjects = {subject: each for subject, each in read_glosses(fetch_glosses(cache)).items() if each}
    parents: dict[str, str | None] = {ROOT: None}
    for subject in subjects:
        speech = subject.partition(".")[0]
        parents |= {speech: ROOT, subject: speech}
    return Corpus("WordNet's glosses", parents, {subject: shuffled(each) for subject, each in subjects.items()})


def all_texts(corpora: Iterable[Corpus]) -> list[str]:
    """Every text of all of them once, by its hash."""
    return shuffled(text for corpus in corpora for texts in corpus.texts.values() for text in texts)
