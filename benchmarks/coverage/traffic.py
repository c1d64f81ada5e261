"""A stream of texts that drifts half-way: who asks and about what changes; no text ever comes twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.coverage.corpora import ROOT, Corpus, shuffled
from hmi.knowledge import Parents

__all__ = ["PARTIAL", "REFERENCE", "WHOLE", "Drift", "Period", "drifting", "parents_of", "steady"]

REFERENCE = "reference"
"""The domain that all glosses are asked of: its subjects drift."""

_FIRST_DOMAINS = {"movies", "news"}

# Nature, matter and motion before the drift; people, things and speech after it: about half of the text each.
_FIRST_SUBJECTS = {
    *("adj.all", "adj.pert", "noun.act", "noun.animal", "noun.body", "noun.food", "noun.location", "noun.object"),
    *("noun.phenomenon", "noun.plant", "noun.process", "noun.quantity", "noun.shape", "noun.state", "noun.substance"),
    *("verb.body", "verb.change", "verb.consumption", "verb.contact", "verb.motion"),
}

Period = Mapping[str, Sequence[str]]
"""What is asked between two rebuilds: texts by domain."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How much changes.

    Attributes:
        glosses: Share of the first subjects' glosses that come before the drift, and of the others' that come after it.
        sentences: The same of the sentences of the first domains, and of the others'.
        backward: The later half comes first.
    """

    name: str
    glosses: float
    sentences: float
    backward: bool = False


PARTIAL = Drift("partial", 0.9, 0.75)
WHOLE = Drift("whole", 1.0, 1.0)


def parents_of(sentences: Corpus) -> Parents:
    """The demonstration's domains and one more for the glosses."""
    return {**sentences.parents, REFERENCE: ROOT}


def drifting(
    sentences: Corpus, definitions: Corpus, periods: int, drift: Drift = PARTIAL
) -> tuple[list[Period], list[Period]]:
    """The periods before and after the drift, `periods` of each."""
    before, after = list[tuple[str, str]](), list[tuple[str, str]]()
    for source, domain, texts in _sources(sentences, definitions):
        share = drift.glosses if domain == REFERENCE else drift.sentences
        is_first = source in _FIRST_DOMAINS | _FIRST_SUBJECTS
        cut = round((share if is_first else 1 - share) * len(texts))
        before += [(domain, text) for text in texts[:cut]]
        after += [(domain, text) for text in texts[cut:]]
    if drift.backward:
        before, after = after, before
    return _periods(before, periods), _periods(after, periods)


def steady(before: Sequence[Period], after: Sequence[Period]) -> list[Period]:
    """The same texts in as many periods as both halves have, without a drift."""
    texts = [(domain, text) for period in (*before, *after) for domain in period for text in period[domain]]
    return _periods(texts, len(before) + len(after))


def _sources(sentences: Corpus, definitions: Corpus) -> list[tuple[str, str, Sequence[str]]]:
    """Where texts come from, the domain that they are asked of, and the texts that no source before it has."""
    seen: set[str] = set()
    sources = list[tuple[str, str, Sequence[str]]]()
    for corpus, domain_of in ((sentences, lambda source: source), (definitions, lambda _: REFERENCE)):
        for source in sorted(corpus.texts):
            new = [text for text in corpus.texts[source] if text not in seen]
            seen.update(new)
            sources.append((source, domain_of(source), new))
    return sources


def _periods(texts: Sequence[tuple[str, str]], count: int) -> list[Period]:
    """Cut into parts of equally many texts, each a fair sample of all."""
    domain_of = {text: domain for domain, text in texts}
    ordered = shuffled(domain_of, salt="time")
    periods = list[Period]()
    for number in range(count):
        period: dict[str, list[str]] = defaultdict(list)
        for text in ordered[len(ordered) * number // count : len(ordered) * (number + 1) // count]:
            period[domain_of[text]].append(text)
        periods.append(dict(period))
    return periods
