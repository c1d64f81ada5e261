"""A label for each word of a text, or named parts of it, which are trained as BIO tags of words.

Words are the tokenizer's, as in serving, and a word's first piece speaks for it (Devlin et al., 2019, section 5.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hmi.adapters import Pooling
from hmi.models.text import BEGIN, INSIDE, OUTSIDE, Word, bio_entities, is_bio, words_of
from hmi.training.data import Span, TaggedExample, tagger_labels, tags_and_names
from hmi.training.lower import LowerStates, text_chunks
from hmi.training.reports import (
    AnswerCounts,
    Evaluation,
    Metrics,
    entity_counts,
    entity_metrics,
    word_counts,
    word_metrics,
)
from hmi.training.tasks.network import Network
from hmi.training.tasks.objective import Preprocessor

__all__ = ["TagPart", "Tagging", "named_parts", "tag_labels"]

_UNLABELLED = -100  # what cross entropy passes over


def tag_labels(examples: Sequence[TaggedExample]) -> tuple[str, ...]:
    """As `tagger_labels`, of examples. Raises `InvalidInput`."""
    return tagger_labels(*tags_and_names(examples))


def named_parts(example: TaggedExample) -> tuple[Span, ...]:
    """The parts that an example names, be it by spans or by BIO tags of words."""
    if example.entities:
        return example.spans
    words = example.spans
    return tuple(
        Span(words[chunk.first].start, words[chunk.last].end, chunk.name)
        for chunk in bio_entities([word.label for word in words])
    )


@dataclass(frozen=True, slots=True, eq=False)
class TagPart:
    """Attributes:
    places: For each text the tokens that speak for its words, int64 `[words]`.
    targets: For each text the labels of its words, int64 `[words]`; -100 where a word has none.
    """

    states: LowerStates
    places: list[NDArray[np.int64]]
    targets: list[NDArray[np.int64]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.states.lengths

    tokens = lengths

    def known(self) -> NDArray[np.int64]:
        """The labels of all words that have one."""
        flat = np.concatenate(self.targets)
        known: NDArray[np.int64] = flat[flat != _UNLABELLED]
        return known


class Tagging:
    """A label for each word."""

    pooling = Pooling.TOKENS

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self._bio = is_bio(labels)
        self._names = sorted({label[len(BEGIN) :] for label in labels if label != OUTSIDE}) if self._bio else []

    def prepare(self, examples: Sequence[TaggedExample], texts: Preprocessor) -> TagPart:
        states = texts.states([example.text for example in examples])
        every = text_chunks([example.text for example in examples])
        encodings = chain.from_iterable(map(texts.tokenizer.encode_batch, every))
        numbers = {label: number for number, label in enumerate(self.labels)}
        places, targets = [], []
        for example, encoding, length in zip(examples, encodings, states.lengths.tolist(), strict=True):
            words = words_of(encoding, length)
            places.append(np.array([word.token for word in words], np.int64))
            tags = _bio_tags(words, named_parts(example)) if self._bio else _plain_tags(words, example.spans)
            found = [_UNLABELLED if tag is None else numbers[tag] for tag in tags]
            targets.append(np.array(found, np.int64))
        return TagPart(states, places, targets)

    def loss(self, network: Network, part: TagPart, chosen: Sequence[int]) -> Tensor:
        hidden, mask = network.upper(part.states, chosen)
        targets = _padded(part, chosen, hidden.shape[1]).to(network.device)
        return _mean_loss(network.adapter.logits(hidden, mask), targets)

    def judge(self, network: Network, part: TagPart) -> Metrics:
        return self._metrics(part, *self._answer(network, part))

    def examine(self, network: Network, part: TagPart) -> Evaluation:
        said, loss = self._answer(network, part)
        return Evaluation(self._metrics(part, said, loss), self._tally(part, said))

    @torch.no_grad()
    def _answer(self, network: Network, part: TagPart) -> tuple[list[NDArray[np.int64]], float]:
        """The labels of each text's words, and the loss."""
        said: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(part.states)
        total = 0.0
        for chosen, hidden, mask in network.judged(part.states):
            logits = network.adapter.logits(hidden, mask)
            total += len(chosen) * float(_mean_loss(logits, _padded(part, chosen, hidden.shape[1]).to(network.device)))
            best = logits.argmax(-1).cpu().numpy()
            for row, example in enumerate(chosen):
                said[example] = best[row, part.places[example]]
        return said, total / len(part.states)

    def counts(self, part: TagPart) -> tuple[int, ...]:
        return tuple(np.bincount(part.known(), minlength=len(self.labels)).tolist())

    def baseline(self, network: Network, learnt: TagPart, judging: TagPart) -> float:
        usual = int(np.argmax(self.counts(learnt)))
        return self._metrics(judging, [np.full_like(each, usual) for each in judging.targets], 0.0).score

    def _metrics(self, part: TagPart, said: Sequence[NDArray[np.int64]], loss: float) -> Metrics:
        if self._bio:
            return entity_metrics(self._names, self._all_parts(part.targets), self._all_parts(said), loss)
        true = np.concatenate(part.targets)
        has = true != _UNLABELLED
        return word_metrics(self.labels, true[has], np.concatenate(said)[has], loss)

    def _tally(self, part: TagPart, said: Sequence[NDArray[np.int64]]) -> AnswerCounts:
        if self._bio:
            return entity_counts(self._names, self._all_parts(part.targets), self._all_parts(said))
        known = [targets != _UNLABELLED for targets in part.targets]
        true, given = ([each[has] for each, has in zip(of, known, strict=True)] for of in (part.targets, said))
        return word_counts(self.labels, true, given)

    def _all_parts(self, texts: Sequence[NDArray[np.int64]]) -> list[list[Span]]:
        return [self._parts(numbers) for numbers in texts]

    def _parts(self, numbers: NDArray[np.int64]) -> list[Span]:
        """Named parts as words from, to and name."""
        tags = [OUTSIDE if number == _UNLABELLED else self.labels[number] for number in numbers.tolist()]
        return [Span(chunk.first, chunk.last, chunk.name) for chunk in bio_entities(tags)]


def _bio_tags(words: Sequence[Word], parts: Sequence[Span]) -> list[str | None]:
    """A word belongs to the first part that it shares a character with; words in none are outside."""
    tags: list[str | None] = []
    begun: Span | None = None
    for word in words:
        part = _part_of(word, parts)
        tags.append(OUTSIDE if part is None else f"{INSIDE if part is begun else BEGIN}{part.label}")
        begun = part
    return tags


def _plain_tags(words: Sequence[Word], spans: Sequence[Span]) -> list[str | None]:
    parts = (_part_of(word, spans) for word in words)
    return [None if part is None else part.label for part in parts]


def _part_of(word: Word, spans: Sequence[Span]) -> Span | None:
    return next((span for span in spans if span.start < word.end and word.start < span.end), None)


def _padded(part: TagPart, chosen: Sequence[int], tokens: int) -> Tensor:
    """The targets of the chosen texts at their words' tokens, int64 `[B, T]`."""
    targets = np.full((len(chosen), tokens), _UNLABELLED, np.int64)
    for row, example in enumerate(chosen):
        targets[row, part.places[example]] = part.targets[example]
    return torch.from_numpy(targets)


def _mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Over the words that have a label; texts may have none at all."""
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_UNLABELLED, reduction="sum")
    return total / (targets != _UNLABELLED).sum().clamp(min=1)
