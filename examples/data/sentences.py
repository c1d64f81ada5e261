"""The labelled text: rated sentences of four domains, and their split into parts.

The sentences are those of C.J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment
Analysis of Social Media Text" (ICWSM 2014), each with the mean rating that people gave it, -4 to 4. They
come inside the source package `vaderSentiment` 3.0 (MIT licence), which pip fetches into a cache.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from examples.data.packages import fetch_package
from hmi.errors import Corrupt

__all__ = ["DOMAINS", "SENTENCE_FILES", "Part", "Sentence", "fetch_sentences", "read_sentences", "thinned"]

_PACKAGE = "vaderSentiment"
_VERSION = "3.0"
_SHA256 = "74d716d26e14a1465d64ab5e48231afa9773a173de01ae9cf37b78c585e2b431"
_ARCHIVE = f"{_PACKAGE}-{_VERSION}.tar.gz"
_INNER = f"{_PACKAGE}-{_VERSION}/additional_resources/hutto_ICWSM_2014.tar.gz"
_FOLDER = "hutto_ICWSM_2014"

SENTENCE_FILES = {
    "movies": "movieReviewSnippets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
}

# Each domain of the knowledge trees and its parent; a parent comes before its children.
DOMAINS: Mapping[str, str] = {
    "reviews": "general",
    "movies": "reviews",
    "products": "reviews",
    "news": "general",
    "tweets": "general",
}

_NEUTRAL = 0.5  # sentences rated within -0.5..0.5 are neither positive nor negative
_TRAIN_BELOW, _DEV_BELOW = 179, 205  # of the first byte of the text's SHA-256: 70 %, 10 %, 20 %


class Part(StrEnum):
    TRAIN = "train"
    DEV = "dev"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Sentence:
    """`label` is `positive` or `negative`."""

    text: str
    label: str

    @property
    def part(self) -> Part:
        """A function of the text alone, so that a sentence that occurs twice is in one part only."""
        first = hashlib.sha256(self.text.encode()).digest()[0]
        if first < _TRAIN_BELOW:
            return Part.TRAIN
        return Part.DEV if first < _DEV_BELOW else Part.TEST


def fetch_sentences(cache: Path) -> tuple[Path, bool]:
    """The archive with the sentences in the folder `cache`, and whether it was downloaded now.

    Raises `HmiError` (code `text_unavailable`) if pip cannot fetch it.
    """
    return fetch_package(cache, f"{_PACKAGE}=={_VERSION}", _ARCHIVE, _SHA256, code="text_unavailable")


def read_sentences(archive: Path) -> dict[str, list[Sentence]]:
    """Read every rated sentence by domain, in the order of the files, without the neutral ones.

    Nothing of the archive is unpacked or run. Raises `Corrupt`.
    """
    try:
        with tarfile.open(archive) as outer:
            inner = outer.extractfile(_INNER)
            if inner is None:
                raise Corrupt(f"{archive}: {_INNER} is not a file")
            with inner, tarfile.open(fileobj=inner) as tar:
                return {domain: _read(tar, name) for domain, name in SENTENCE_FILES.items()}
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise Corrupt(f"{archive} cannot be read; delete it and try again: {error}") from error


def thinned(sentences: Sequence[Sentence], most: int) -> tuple[Sentence, ...]:
    """At most `most` of them, evenly from beginning to end."""
    if len(sentences) <= most:
        return tuple(sentences)
    return tuple(sentences[len(sentences) * number // most] for number in range(most))


def _read(tar: tarfile.TarFile, name: str) -> list[Sentence]:
    file = tar.extractfile(f"{_FOLDER}/{name}")
    if file is None:
        raise Corrupt(f"{name} is not a file")
    with file:
        return _parse(file.read().decode().splitlines(), name)


def _parse(lines: Sequence[str], name: str) -> list[Sentence]:
    sentences = []
    for number, line in enumerate(lines, start=1):
        try:
            _, rating, text = line.split("\t", 2)
            rated = float(rating)
        except ValueError as error:
            raise Corrupt(f"{name}, line {number}: expected id, rating and text") from error
        if abs(rated) > _NEUTRAL:
            sentences.append(Sentence(text, "positive" if rated > 0 else "negative"))
    return sentences
