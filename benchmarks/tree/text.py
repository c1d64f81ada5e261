"""Token ids that repeat as text does: the n-grams that a tree holds, and the windows that are looked up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge import Keys, unigrams, window_keys
from hmi.knowledge.store import KeySearch

VOCABULARY = 30_522
_FIRST, _LAST = 101, 102  # the special tokens around every sequence, as BERT numbers them
_BOUND_SHARE = 0.9  # of tokens: chosen by the token before them
_FREE_EXPONENT, _BOUND_EXPONENT = 1.0, 1.9
_LONGEST = 64


@dataclass(frozen=True, slots=True)
class Text:
    ids: NDArray[np.int64]  # [tokens] of all sequences, one after the other, special tokens included
    lengths: NDArray[np.int64]  # [sequences]

    @property
    def keys(self) -> Keys:
        return window_keys(self.ids, self.lengths)

    def sequences(self, chosen: NDArray[np.int64]) -> Text:
        """Some of the sequences, in the order of `chosen`."""
        starts = np.cumsum(self.lengths) - self.lengths
        lengths = self.lengths[chosen]
        offsets = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return Text(self.ids[np.repeat(starts[chosen], lengths) + offsets], lengths)

    def batches(self, tokens: int) -> list[Text]:
        """Cut into runs of whole sequences, each about so many tokens long."""
        ends = np.cumsum(self.lengths)
        cuts = np.searchsorted(ends, np.arange(tokens, int(ends[-1]), tokens))
        return [self.sequences(part) for part in np.array_split(np.arange(len(self.lengths)), cuts) if len(part)]


def make_text(tokens: int, seed: int) -> Text:
    """About so many tokens in sequences of 8 to 64, 28 on average.

    Tokens follow Zipf's law, most of them given the token before. Of a million tokens two thirds of the windows are
    different ones, and another million have 45 % of their windows in common with them; English is about so.
    """
    rng = np.random.default_rng(seed)
    count = max(1, tokens // 28)
    # The longest first: at each place, the texts that have more tokens come first.
    lengths = -np.sort(-np.clip(rng.gamma(4, 7, count), 8, _LONGEST).astype(np.int64))
    ids = np.empty((count, _LONGEST), np.int32)
    ids[:, 0] = _FIRST
    frequent_first = np.random.default_rng(0).permutation(VOCABULARY).astype(np.int32)
    for at in range(1, _LONGEST):
        longer = int(np.searchsorted(-lengths, -at))
        free, bound = _zipf(rng.random(longer), _FREE_EXPONENT), _zipf(rng.random(longer), _BOUND_EXPONENT)
        # Each token prefers others: its successors' ranks are shifted by an amount of its own.
        bound += ids[:longer, at - 1].astype(np.int64) * 7919
        rank = np.where(rng.random(longer) < _BOUND_SHARE, bound, free)
        ids[:longer, at] = frequent_first[rank % VOCABULARY]
    ids[np.arange(count), lengths - 1] = _LAST
    order = rng.permutation(count)
    ids, lengths = ids[order], lengths[order]
    return Text(ids[np.arange(_LONGEST) < lengths[:, None]].astype(np.int64), lengths)


def mix(known: Text, fresh: Text, tokens: int, fresh_share: float, seed: int) -> Text:
    """About so many tokens of sequences drawn from both."""
    rng = np.random.default_rng(seed)
    count = max(1, tokens // 28)
    both = Text(np.concatenate([known.ids, fresh.ids]), np.concatenate([known.lengths, fresh.lengths]))
    chosen = np.where(
        rng.random(count) < fresh_share,
        len(known.lengths) + rng.integers(len(fresh.lengths), size=count),
        rng.integers(len(known.lengths), size=count),
    )
    return both.sequences(chosen)


def distinct_windows(count: int) -> tuple[Keys, Text]:
    """So many different n-grams, ascending, the unigrams of the whole vocabulary among them; and a text whose windows
    they are, but for a few of them."""
    keys, texts = unigrams(VOCABULARY), list[Text]()
    tokens = max(200, (count - len(keys)) // 8)
    while True:
        text = make_text(tokens, seed=100 + len(texts))
        # numpy's `unique` of bare values goes through a hash table, which takes a hundred times as long as sorting.
        new = np.sort(text.keys)
        new = new[np.concatenate([[True], new[1:] != new[:-1]])]
        new = new[~KeySearch(keys).find(new)[1]]
        if len(keys) + len(new) > count:
            break
        keys = np.sort(np.concatenate([keys, new]))
        texts.append(text)
    few = np.random.default_rng(0).permutation(new)[: count - len(keys)]
    ids, lengths = [each.ids for each in texts], [each.lengths for each in texts]
    return np.sort(np.concatenate([keys, few])), Text(np.concatenate(ids), np.concatenate(lengths))


def _zipf(drawn: NDArray[np.float64], exponent: float) -> NDArray[np.int64]:
    """Ranks from 0, from numbers drawn evenly between 0 and 1: the continuous law, cut off at the vocabulary's end."""
    if exponent == 1:
        rank = np.power(VOCABULARY, drawn)
    else:
        power = 1 - exponent
        rank = np.power(1 - drawn * (1 - VOCABULARY**power), 1 / power)
    return rank.astype(np.int64) - 1
