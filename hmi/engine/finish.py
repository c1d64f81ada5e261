"""Last stage: numbers become outcomes, and outcomes reach whoever waits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hmi.adapters.tiers import Labels
from hmi.engine.work import Batch
from hmi.errors import Corrupt, HmiError
from hmi.items import Classification, Embedding, Outcome, Tag, Tagging, Task
from hmi.models.text import Word, words_of

__all__ = ["finish", "keep_computed"]


def finish(batch: Batch) -> None:
    """Keep the rows that a batch has computed, and settle every sequence of it."""
    keep_computed(batch)  # first: who has an answer finds what was computed for it
    words = _words(batch)
    for row, work in enumerate(batch.works):
        resident = batch.residents[row]
        try:
            result: Classification | Tagging | Embedding
            if work.item.task is Task.EMBED:
                result = _embedding(batch, row)
            elif row in words:
                result = _tagging(batch, row, words[row], resident.labels if resident else None)
            else:
                result = _classification(batch, row, resident.labels if resident else None)
        except HmiError as error:
            work.fail(error)
        else:
            work.settle(Outcome(result=result, error=None, tokens=len(work.ids)))


def keep_computed(batch: Batch) -> None:
    """For the next batches that ask for the same windows; what is not finite is nobody's answer."""
    if batch.computed is None:
        return
    rows = batch.computed.cpu().numpy()
    start = 0
    for group in batch.groups:
        some = rows[start : start + len(group.keys)]
        start += len(group.keys)
        if np.isfinite(some).all():
            batch.base.miss_cache.add(group.function, group.keys, some)


def _embedding(batch: Batch, row: int) -> Embedding:
    if batch.pooled is None:
        raise Corrupt("the device gave no embedding")
    return Embedding(_finite(batch.pooled[row]).copy())


def _classification(batch: Batch, row: int, labels: Labels | None) -> Classification:
    if batch.logits is None or labels is None:
        raise Corrupt("the device gave no logits")
    logits = _finite(batch.logits[row, : len(labels.names)].astype(np.float64))
    if labels.multi_label:
        probs = 1 / (1 + np.exp(-logits))
    else:
        powers = np.exp(logits - logits.max())
        probs = powers / powers.sum()
    return Classification(labels.names, tuple(probs.tolist()))


def _words(batch: Batch) -> dict[int, list[Word]]:
    """Of the rows whose heads answer for every token. Their texts are cut again, to know where each piece stands: the
    first stage does not ask for that, since it costs every text time and few want it."""
    if batch.taggers is None:
        return {}
    rows = batch.taggers.rows
    encodings = batch.base.tokenizer.encode_batch([batch.works[row].item.text or "" for row in rows])
    return {row: words_of(encoding, len(batch.works[row].ids)) for row, encoding in zip(rows, encodings, strict=True)}


def _tagging(batch: Batch, row: int, words: list[Word], labels: Labels | None) -> Tagging:
    if batch.taggers is None or batch.tags is None or batch.tag_scores is None or labels is None:
        raise Corrupt("the device gave no tags")
    place = batch.taggers.rows.index(row)
    firsts = [word.token for word in words]
    tags, scores = batch.tags[place, firsts].tolist(), _finite(batch.tag_scores[place, firsts]).tolist()
    found = zip(words, tags, scores, strict=True)
    return Tagging(
        labels.names, tuple(Tag(word.start, word.end, labels.names[tag], score) for word, tag, score in found)
    )


def _finite(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """A NaN is never an answer: it would look like one to whoever reads the file."""
    if not np.isfinite(values).all():
        raise Corrupt("the model gave numbers that are not finite; its adapter may not fit the dtype it runs in")
    return values
