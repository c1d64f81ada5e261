"""First stage: items become sequences of token ids, or fail with what is wrong with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hmi.engine.hosted import LoadedModel, LoadedModels
from hmi.engine.work import SequenceTask, Submission, to_hmi_error
from hmi.errors import ContextTooLong, HmiError, InvalidInput
from hmi.items import Item, Outcome, Task

__all__ = ["tokenise"]

_CHUNK = 512  # inputs handed to the tokenizer at once; it works on all cores without the GIL
_CHUNK_CHARACTERS = 2 * 1024**2  # and no more of them than this: meanwhile a text takes up to 90 times its size

_NO_IDS = np.zeros(0, np.int64)
_Given = tuple[str | None, tuple[tuple[str, str], ...] | None, tuple[int, ...] | None]


def tokenise(submission: Submission, bases: LoadedModels) -> Iterator[list[SequenceTask]]:
    """Yield the submission's sequences in chunks; items that cannot run are settled with their error.

    Items of the same input share their ids: several choices of one prompt cost no more than one.
    """
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
        for some in _chunks(submission.items, indices):
            yield _chunk(submission, some, base)


def _chunks(items: Sequence[Item], indices: list[int]) -> Iterator[list[int]]:
    """Cut where different inputs come to `_CHUNK`, or to `_CHUNK_CHARACTERS` unless one alone is more."""
    chunk: list[int] = []
    seen: set[_Given] = set()
    characters = 0
    for index in indices:
        item = items[index]
        given = (item.text, item.messages, item.tokens)
        if given not in seen:
            more = len(item.text or "") + sum(len(content) for _, content in item.messages or ())
            if chunk and (len(seen) == _CHUNK or characters + more > _CHUNK_CHARACTERS):
                yield chunk
                chunk, seen, characters = [], set(), 0
            seen.add(given)
            characters += more
        chunk.append(index)
    if chunk:
        yield chunk


def _chunk(submission: Submission, indices: list[int], base: LoadedModel) -> list[SequenceTask]:
    chats: dict[tuple[tuple[str, str], ...], str | HmiError] = {}
    read: list[tuple[SequenceTask, str | None]] = []
    for index in indices:
        work = SequenceTask(submission, index, _NO_IDS, base)
        try:
            _check_family(work.item, base)
            read.append((work, _text(work.item, base, chats)))
        except Exception as error:  # noqa: BLE001 - one item's fault
            work.fail(to_hmi_error(error))
    plain = _encode((text for work, text in read if text is not None and work.item.messages is None), base)
    # A chat's template writes the special tokens itself.
    chatted = (text for work, text in read if text is not None and work.item.messages is not None)
    whole = _encode(chatted, base, adds_special=False)
    works = []
    for work, text in read:
        item = work.item
        try:
            if text is None:
                ids = np.asarray(item.tokens or (), np.int64)
            else:
                ids = (plain if item.messages is None else whole)[text]
            work.ids = _fit(item, ids, base)
        except Exception as error:  # noqa: BLE001 - one item's fault
            work.fail(to_hmi_error(error))
        else:
            works.append(work)
    return works


def _check_family(item: Item, base: LoadedModel) -> None:
    """What is of no use to a model is refused before anything is fetched for it."""
    if base.spec.family.decodes and item.task is Task.EMBED:
        raise InvalidInput("a decoder continues texts and gives classes of them; it gives no embeddings", param="model")
    if not base.spec.family.decodes and item.task is Task.GENERATE:
        raise InvalidInput("an encoder continues no text; ask it for classes or embeddings", param="model")


def _text(item: Item, base: LoadedModel, chats: dict[tuple[tuple[str, str], ...], str | HmiError]) -> str | None:
    """What is to be encoded of an item; None for one that comes in tokens. `chats` keeps what became of others."""
    text = item.text
    if item.messages is not None:
        if item.messages not in chats:
            chats[item.messages] = _render(item.messages, base)
        found = chats[item.messages]
        if isinstance(found, HmiError):
            raise found
        text = found
    context = base.spec.max_positions
    # Not where it is to be cut: what its first tokens are shows only when the text is encoded.
    if text is not None and item.truncate_to is None and base.extent and base.extent.exceeds(text, context):
        raise ContextTooLong(
            f"the input has {len(text)} characters, which are more than the {context} tokens that the model takes",
            param="input",
        )
    return text


def _render(messages: tuple[tuple[str, str], ...], base: LoadedModel) -> str | HmiError:
    if base.chat is None:
        return InvalidInput("the base model has no chat template; send a prompt to /v1/completions", param="messages")
    try:
        return base.chat.render(messages)
    except HmiError as error:
        return error


def _encode(texts: Iterable[str], base: LoadedModel, *, adds_special: bool = True) -> dict[str, NDArray[np.int64]]:
    """Ids of each different text."""
    each = list(dict.fromkeys(texts))
    encodings = base.tokenizer.encode_batch_fast(each, add_special_tokens=adds_special)
    return {text: np.asarray(found.ids, np.int64) for text, found in zip(each, encodings, strict=True)}


def _fit(item: Item, ids: NDArray[np.int64], base: LoadedModel) -> NDArray[np.int64]:
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
        raise ContextTooLong(f"the input has {len(ids)} tokens, the model takes {limit}", param="input")
    return ids
