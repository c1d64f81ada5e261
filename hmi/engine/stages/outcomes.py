"""Last stage: turns a batch's numbers into outcomes and settles its tasks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters.tiers import Labels
from hmi.engine.stages.batches import ComputedBatch, StagedBatch
from hmi.errors import Corrupt, HmiError
from hmi.items import Classification, Embedding, Outcome, Tag, Tagging, Task
from hmi.models.text import Word, words_of


def finish(batch: ComputedBatch) -> None:
    """Keep the rows that a batch computed, and settle its tasks."""
    staged = batch.staged
    keep_rows(staged, batch.rows)  # first: once an outcome is set, its rows are in the miss cache
    words = _words(staged)
    for row, (task, resident) in enumerate(zip(staged.tasks, staged.layout.residents, strict=True)):
        labels = None if resident is None else resident.labels
        try:
            result: Classification | Tagging | Embedding
            if task.item.task is Task.EMBED:
                result = Embedding(_finite(batch.pooled[row]).copy())
            elif labels is None:
                raise Corrupt("the model's head has no labels")
            elif row in words:
                result = _tagging(batch, list(words).index(row), words[row], labels)
            else:
                result = _classification(batch.logits[row], labels)
        except HmiError as error:
            task.fail(error)
        else:
            task.settle(Outcome(result=result, error=None, tokens=len(task.ids)))


def keep_rows(batch: StagedBatch, computed: Tensor | None) -> None:
    """Put computed rows float32 `[N, H]` into the miss cache, unless a group has one that is not finite."""
    if computed is None or batch.rows is None:
        return
    rows = computed.cpu().numpy()
    start = 0
    for group in batch.rows.groups:
        some = rows[start : start + len(group.keys)]
        start += len(group.keys)
        if np.isfinite(some).all():
            batch.base.miss_cache.add(group.function, group.scope, group.keys, some)


def _classification(logits: NDArray[np.float32], labels: Labels) -> Classification:
    own = _finite(logits[: len(labels.names)].astype(np.float64))
    if labels.multi_label:
        probs = 1 / (1 + np.exp(-own))
    else:
        powers = np.exp(own - own.max())
        probs = powers / powers.sum()
    return Classification(labels.names, tuple(probs.tolist()))


def _words(batch: StagedBatch) -> dict[int, list[Word]]:
    """The words of the rows with token heads. Their texts are encoded again, with the offsets that the first stage
    leaves out: those cost each text time, and few rows need them."""
    if batch.layout.token_heads is None:
        return {}
    rows = batch.layout.token_heads.rows
    encodings = batch.base.tokenizer.encode_batch([batch.tasks[row].item.text or "" for row in rows])
    return {row: words_of(encoding, len(batch.tasks[row].ids)) for row, encoding in zip(rows, encodings, strict=True)}


def _tagging(batch: ComputedBatch, place: int, words: list[Word], labels: Labels) -> Tagging:
    """Give each word the label of its first token; `place` is the row's among those with token heads."""
    firsts = [word.token for word in words]
    tags, scores = batch.tags[place, firsts].tolist(), _finite(batch.tag_scores[place, firsts]).tolist()
    found = zip(words, tags, scores, strict=True)
    return Tagging(
        labels.names, tuple(Tag(word.start, word.end, labels.names[tag], score) for word, tag, score in found)
    )


def _finite(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Raises `Corrupt` for NaN and infinity, which would look like an answer to readers of the output file."""
    if not np.isfinite(values).all():
        raise Corrupt("the model gave numbers that are not finite; its adapter may not fit the dtype it runs in")
    return values
