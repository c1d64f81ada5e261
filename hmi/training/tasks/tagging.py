"""A label for each word of a text, or entities, which are trained as BIO tags of words.

Words are the tokenizer's, as in serving, and a word's first token carries its label (Devlin et al., 2019, section 5.3).
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
from hmi.training.lower import text_chunks
from hmi.training.reports import Evaluation, evaluate_entities, evaluate_words
from hmi.training.tasks.network import Network
from hmi.training.tasks.objective import LabelObjective, Preprocessor, TaskData

_UNLABELLED = -100  # cross entropy ignores it
WordLabels = list[NDArray[np.int64]]  # of each text, `[words]`


def tag_labels(examples: Sequence[TaggedExample]) -> tuple[str, ...]:
    """`tagger_labels` of examples. Raises `InvalidInput`."""
    return tagger_labels(*tags_and_names(examples))


def entities_of(example: TaggedExample) -> tuple[Span, ...]:
    """The entities of an example, from its spans or from BIO tags of words."""
    if example.entities:
        return example.spans
    words = example.spans
    return tuple(
        Span(words[chunk.first].start, words[chunk.last].end, chunk.name)
        for chunk in bio_entities([word.label for word in words])
    )


@dataclass(frozen=True, slots=True, eq=False)
class TagData(TaskData):
    places: WordLabels  # for each text the first token of each word, int64 `[words]`
    targets: WordLabels  # for each text the labels of its words, int64 `[words]`; -100 for a word without one


class Tagging(LabelObjective[TagData, WordLabels]):
    """A label for each word."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        super().__init__(labels, Pooling.TOKENS)
        self._bio = is_bio(labels)
        self._names = sorted({label[len(BEGIN) :] for label in labels if label != OUTSIDE}) if self._bio else []

    def prepare(self, examples: Sequence[TaggedExample], texts: Preprocessor) -> TagData:
        states = texts.states([example.text for example in examples])
        every = text_chunks([example.text for example in examples])
        encodings = chain.from_iterable(map(texts.tokenizer.encode_batch, every))
        numbers = {label: number for number, label in enumerate(self.labels)}
        places, targets = [], []
        for example, encoding, length in zip(examples, encodings, states.lengths.tolist(), strict=True):
            words = words_of(encoding, length)
            places.append(np.array([word.token for word in words], np.int64))
            tags = _bio_tags(words, entities_of(example)) if self._bio else _plain_tags(words, example.spans)
            targets.append(np.array([_UNLABELLED if tag is None else numbers[tag] for tag in tags], np.int64))
        return TagData(states, places, targets)

    def loss(self, network: Network, data: TagData, chosen: Sequence[int]) -> Tensor:
        hidden, mask = network.upper(data.states, chosen)
        targets = _padded_targets(data, chosen, hidden.shape[1]).to(network.device)
        return _mean_loss(network.adapter.logits(hidden, mask), targets)

    @torch.no_grad()
    def predict(self, network: Network, data: TagData) -> tuple[WordLabels, float]:
        predicted: WordLabels = [np.empty(0, np.int64)] * len(data.states)
        total = 0.0
        for chosen, hidden, mask in network.evaluation_batches(data.states):
            logits = network.adapter.logits(hidden, mask)  # [B, T, labels]
            targets = _padded_targets(data, chosen, hidden.shape[1]).to(network.device)
            total += len(chosen) * float(_mean_loss(logits, targets))
            best = logits.argmax(-1).cpu().numpy()
            for row, example in enumerate(chosen):
                predicted[example] = best[row, data.places[example]]
        return predicted, total / len(data.states)

    def compare(self, data: TagData, predicted: WordLabels, loss: float = 0.0) -> Evaluation:
        if self._bio:
            return evaluate_entities(self._names, self._entities(data.targets), self._entities(predicted), loss)
        labelled = [targets != _UNLABELLED for targets in data.targets]
        true, given = ([each[has] for each, has in zip(of, labelled, strict=True)] for of in (data.targets, predicted))
        return evaluate_words(self.labels, true, given, loss)

    def counts(self, data: TagData) -> tuple[int, ...]:
        flat = np.concatenate(data.targets)
        return tuple(np.bincount(flat[flat != _UNLABELLED], minlength=len(self.labels)).tolist())

    def baseline(self, network: Network, train: TagData, dev: TagData) -> float:
        most_frequent = int(np.argmax(self.counts(train)))
        return self.compare(dev, [np.full_like(each, most_frequent) for each in dev.targets]).metrics.score

    def _entities(self, texts: WordLabels) -> list[list[Span]]:
        """The entities of each text, as first word, last word and name."""
        tags = ([OUTSIDE if number == _UNLABELLED else self.labels[number] for number in text] for text in texts)
        return [[Span(chunk.first, chunk.last, chunk.name) for chunk in bio_entities(each)] for each in tags]


def _bio_tags(words: Sequence[Word], entities: Sequence[Span]) -> list[str | None]:
    """A word belongs to the first entity that it shares a character with; other words are outside."""
    tags: list[str | None] = []
    previous: Span | None = None
    for word in words:
        entity = _span_of(word, entities)
        tags.append(OUTSIDE if entity is None else f"{INSIDE if entity is previous else BEGIN}{entity.label}")
        previous = entity
    return tags


def _plain_tags(words: Sequence[Word], spans: Sequence[Span]) -> list[str | None]:
    found = (_span_of(word, spans) for word in words)
    return [None if span is None else span.label for span in found]


def _span_of(word: Word, spans: Sequence[Span]) -> Span | None:
    return next((span for span in spans if span.start < word.end and word.start < span.end), None)


def _padded_targets(data: TagData, chosen: Sequence[int], tokens: int) -> Tensor:
    """The targets of the chosen texts at their words' first tokens, int64 `[B, T]`."""
    targets = np.full((len(chosen), tokens), _UNLABELLED, np.int64)
    for row, example in enumerate(chosen):
        targets[row, data.places[example]] = data.targets[example]
    return torch.from_numpy(targets)


def _mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Over the words that have a label; a batch may have none."""
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_UNLABELLED, reduction="sum")
    return total / (targets != _UNLABELLED).sum().clamp(min=1)
