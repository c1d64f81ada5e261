"""First stage: items become sequences of token ids, or fail with what is wrong with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hmi.engine.hosted import HostedBase, HostedBases
from hmi.engine.request import Item, Outcome, Task
from hmi.engine.work import Submission, Work, as_hmi
from hmi.errors import ContextTooLong, HmiError, InvalidInput

__all__ = ["tokenise"]

_CHUNK = 512  # texts handed to the tokenizer at once; it works on all cores without the GIL


def tokenise(submission: Submission, bases: HostedBases) -> Iterator[list[Work]]:
    """Yield the submission's sequences in chunks; items that cannot run are settled with their error."""
    by_base: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(submission.items):
        by_base[item.model.base].append(index)
    for digest, indices in by_base.items():
        try:
            base = bases.get(digest)
        except HmiError as error:
            for index in indices:
                submission.settle(index, Outcome(result=None, error=error, tokens=0))
            continue
        for start in range(0, len(indices), _CHUNK):
            yield _chunk(submission, indices[start : start + _CHUNK], base)


def _chunk(submission: Submission, indices: list[int], base: HostedBase) -> list[Work]:
    texts = [index for index in indices if submission.items[index].text is not None]
    encodings = base.tokenizer.encode_batch_fast([submission.items[i].text or "" for i in texts])
    ids_of = {index: np.asarray(each.ids, np.int64) for index, each in zip(texts, encodings, strict=True)}
    works = []
    for index in indices:
        item = submission.items[index]
        ids = ids_of[index] if index in ids_of else np.asarray(item.tokens or (), np.int64)
        work = Work(submission, index, ids, base)
        try:
            _check_family(item, base)
            if item.messages is not None:
                ids = _chat_ids(item.messages, base)
            work.ids = _fit(item, ids, base)
        except Exception as error:  # noqa: BLE001 - one item's fault
            work.fail(as_hmi(error))
        else:
            works.append(work)
    return works


def _check_family(item: Item, base: HostedBase) -> None:
    """What is of no use to a model is refused before anything is fetched for it."""
    if base.spec.family.decodes and item.task is Task.EMBED:
        raise InvalidInput("a decoder continues texts and gives classes of them; it gives no embeddings", param="model")
    if not base.spec.family.decodes and item.task is Task.GENERATE:
        raise InvalidInput("an encoder continues no text; ask it for classes or embeddings", param="model")


def _chat_ids(messages: tuple[tuple[str, str], ...], base: HostedBase) -> NDArray[np.int64]:
    if base.chat is None:
        raise InvalidInput("the base model has no chat template; send a prompt to /v1/completions", param="messages")
    # The template writes the special tokens itself.
    return np.asarray(base.tokenizer.encode(base.chat.render(messages), add_special_tokens=False).ids, np.int64)


def _fit(item: Item, ids: NDArray[np.int64], base: HostedBase) -> NDArray[np.int64]:
    """Check ids against the model and cut them where the item asks for it."""
    if not len(ids):
        raise InvalidInput("the input holds no tokens", param="input")
    if item.text is None and (ids.min() < 0 or ids.max() >= base.spec.vocab_size):
        raise InvalidInput(f"token ids must lie in 0..{base.spec.vocab_size - 1}", param="input")
    limit = base.spec.max_positions
    if item.truncate_to is not None:
        limit = min(limit, item.truncate_to)
        if len(ids) > limit:
            # An encoder's text ends with a special token ([SEP]); what is cut keeps it, as tokenizers do.
            ends = item.text is not None and not base.spec.family.decodes
            return np.concatenate([ids[: limit - 1], ids[-1:]]) if ends else ids[:limit]
    if len(ids) > limit:
        raise ContextTooLong(
            f"the input has {len(ids)} tokens, the model takes {limit}; shorten it or set truncate_prompt_tokens",
            param="input",
        )
    return ids
