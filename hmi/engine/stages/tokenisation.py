"""First stage: items become sequences of token ids, or fail with what is wrong with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hmi.engine.memory import LoadedModel, LoadedModels
from hmi.engine.tasks import SequenceTask, Submission, to_hmi_error
from hmi.errors import ContextTooLong, HmiError, InvalidInput
from hmi.items import Item, Task

_CHUNK = 512  # inputs handed to the tokenizer at once; it works on all cores without the GIL
_CHUNK_CHARACTERS = 2 * 1024**2  # and at most so many characters: while encoded, a text takes up to 90 times its size

_Messages = tuple[tuple[str, str], ...]
_Input = tuple[str | None, _Messages | None, tuple[int, ...] | None]


def tokenise(submission: Submission, models: LoadedModels) -> Iterator[list[SequenceTask]]:
    """Yield the submission's tasks in chunks; items that cannot run are settled with their error.

    Items of the same input share their ids: several choices of one prompt cost no more than one.
    """
    by_base: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(submission.items):
        by_base[item.model.base].append(index)
    for digest, indices in by_base.items():
        try:
            base = models.get(digest)
        except HmiError as error:
            for index in indices:
                submission.fail(index, error)
            continue
        for chunk in _chunks(submission.items, indices):
            yield _tokenise_chunk(submission, chunk, base)


def _chunks(items: Sequence[Item], indices: list[int]) -> Iterator[list[int]]:
    """Cut where the different inputs reach `_CHUNK`, or `_CHUNK_CHARACTERS` unless one alone is longer."""
    chunk: list[int] = []
    seen: set[_Input] = set()
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


def _tokenise_chunk(submission: Submission, indices: list[int], base: LoadedModel) -> list[SequenceTask]:
    rendered: dict[_Messages, str | HmiError] = {}
    texts: dict[int, str | None] = {}  # by index; None for an item that comes in tokens
    for index in indices:
        item = submission.items[index]
        try:
            _check_family(item, base)
            texts[index] = _text(item, base, rendered)
        except Exception as error:  # noqa: BLE001 - it fails one item
            submission.fail(index, to_hmi_error(error))
    is_chat = {index: submission.items[index].messages is not None for index in texts}
    plain = _encode((text for index, text in texts.items() if text is not None and not is_chat[index]), base)
    # A chat's template writes the special tokens itself.
    chats = (text for index, text in texts.items() if text is not None and is_chat[index])
    whole = _encode(chats, base, adds_special=False)
    tasks = []
    for index, text in texts.items():
        item = submission.items[index]
        try:
            if text is None:
                ids = np.asarray(item.tokens or (), np.int64)
            else:
                ids = (whole if is_chat[index] else plain)[text]
            tasks.append(SequenceTask(submission, index, _fit(item, ids, base), base))
        except Exception as error:  # noqa: BLE001 - it fails one item
            submission.fail(index, to_hmi_error(error))
    return tasks


def _check_family(item: Item, base: LoadedModel) -> None:
    """Refuse a task that the model does not have before anything is fetched for it."""
    if base.spec.family.decodes and item.task is Task.EMBED:
        raise InvalidInput("a decoder generates texts and classifies them; it gives no embeddings", param="model")
    if not base.spec.family.decodes and item.task is Task.GENERATE:
        raise InvalidInput("an encoder generates no text; ask it for classes or embeddings", param="model")


def _text(item: Item, base: LoadedModel, rendered: dict[_Messages, str | HmiError]) -> str | None:
    """The text of an item to encode; None for one that comes in tokens. Texts of chats are kept in `rendered`."""
    text = item.text
    if item.messages is not None:
        if item.messages not in rendered:
            rendered[item.messages] = _render(item.messages, base)
        found = rendered[item.messages]
        if isinstance(found, HmiError):
            raise found
        text = found
    context, bound = base.spec.max_positions, base.token_length_bound
    # Not where it is to be cut: its first tokens are known only when it is encoded.
    if text is not None and item.truncate_to is None and bound and bound.exceeds(text, context):
        raise ContextTooLong(
            f"the input has {len(text)} characters, which are more than the {context} tokens that the model takes",
            param="input",
        )
    return text


def _render(messages: _Messages, base: LoadedModel) -> str | HmiError:
    if base.chat is None:
        return InvalidInput("the base model has no chat template; send a prompt to /v1/completions", param="messages")
    try:
        return base.chat.render(messages)
    except HmiError as error:
        return error


def _encode(texts: Iterable[str], base: LoadedModel, *, adds_special: bool = True) -> dict[str, NDArray[np.int64]]:
    """Ids of each different text."""
    unique = list(dict.fromkeys(texts))
    encodings = base.tokenizer.encode_batch_fast(unique, add_special_tokens=adds_special)
    return {text: np.asarray(found.ids, np.int64) for text, found in zip(unique, encodings, strict=True)}


def _fit(item: Item, ids: NDArray[np.int64], base: LoadedModel) -> NDArray[np.int64]:
    """Check ids against the model, and truncate them where the item allows it."""
    if not len(ids):
        raise InvalidInput("the input holds no tokens", param="input")
    if item.text is None and (ids.min() < 0 or ids.max() >= base.spec.vocab_size):
        raise InvalidInput(f"token ids must lie in 0..{base.spec.vocab_size - 1}", param="input")
    limit = base.spec.max_positions
    if item.truncate_to is not None:
        limit = min(limit, item.truncate_to)
        if len(ids) > limit:
            # An encoder's text ends with a special token ([SEP]), which a truncated one keeps, as tokenizers do.
            ends = item.text is not None and not base.spec.family.decodes
            return np.concatenate([ids[: limit - 1], ids[-1:]]) if ends else ids[:limit]
    if len(ids) > limit:
        raise ContextTooLong(f"the input has {len(ids)} tokens, the model takes {limit}", param="input")
    return ids
