"""The lower layers' output for a set of texts, computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from hmi.adapters import Adapter
from hmi.adapters.maths import TrainingAdapters
from hmi.knowledge import Keys, token_keys, unpack, window_keys
from hmi.knowledge.store import round_trip
from hmi.models.families import HPLM
from hmi.models.layers import RowEstimator

YieldHook = Callable[[], None]
"""Called after every small piece of work, so that a training can yield to other work; if it raises, the work ends."""


@dataclass(frozen=True, slots=True)
class WindowView:
    """The n-grams that some tokens get."""

    keys: Keys  # uint64 `[tokens]`, n-grams whose rows they get
    estimated: NDArray[np.bool_] | None = None  # bool `[tokens]`, True where the row is estimated; None for nowhere


ViewWindows = Callable[[Keys, NDArray[np.int64]], WindowView]
"""From windows `[tokens]` and the lengths of their sequences to what the tokens get."""

_CHUNK = 4096  # windows at once
_CHARACTERS = 2**20  # of texts that are encoded at once: an encoding takes a hundred bytes and more for each


def encode(
    tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int, *, has_end: bool = True
) -> list[NDArray[np.int64]]:
    """Token ids with special tokens; a longer text is cut, but keeps its last special token if it `has_end`."""
    sequences = []
    for some in text_chunks(texts):
        for encoding in tokenizer.encode_batch_fast(some):
            ids = encoding.ids
            if len(ids) > max_tokens:
                ids = [*ids[: max_tokens - 1], ids[-1]] if has_end else ids[:max_tokens]
            sequences.append(np.asarray(ids, np.int64))
    return sequences


def text_chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in order, as many at once as may be encoded together; a long text is alone."""
    some: list[str] = []
    characters = 0
    for text in texts:
        if some and characters + len(text) > _CHARACTERS:
            yield some
            some, characters = [], 0
        some.append(text)
        characters += len(text)
    if some:
        yield some


@torch.no_grad()
def window_rows(
    model: HPLM,
    keys: Keys,
    delta: TrainingAdapters | None = None,
    yield_hook: YieldHook = lambda: None,
    out: Tensor | None = None,
) -> Tensor:
    """Rows `[n, H]` of packed windows in the model's dtype, rounded as stored rows are; `out` gets them if given."""
    rows = _new_rows(model, len(keys)) if out is None else out
    for start in range(0, len(keys), _CHUNK):
        windows = torch.from_numpy(unpack(keys[start : start + _CHUNK]))  # [n, 3]
        raw = model.lower(windows.to(model.device), delta).float().cpu().numpy()
        rows[start : start + _CHUNK] = torch.from_numpy(round_trip(raw, model.spec.row_dtype))
        yield_hook()
    return rows


def _new_rows(model: HPLM, count: int) -> Tensor:
    """`[count, H]` in the model's dtype, on its device."""
    return torch.empty(count, model.spec.hidden_size, dtype=model.dtype, device=model.device)


def estimator_of(model: HPLM, delta: Adapter | None) -> RowEstimator | None:
    """The estimator of the model's rows, or of a domain's, in the model's dtype and on its device."""
    if delta is None:
        return model.estimator if model.spec.estimator_size else None
    return None if delta.estimator is None else RowEstimator.of(delta.estimator).to(model.device, model.dtype)


@torch.no_grad()
def estimated_rows(
    model: HPLM,
    estimator: RowEstimator,
    keys: Keys,
    delta: TrainingAdapters | None = None,
    yield_hook: YieldHook = lambda: None,
    out: Tensor | None = None,
) -> Tensor:
    """Estimates `[n, H]` of the rows that `window_rows` gives for the same arguments."""
    ids = unpack(keys)
    tokens = np.unique(ids[ids >= 0])
    alone = _new_rows(model, len(tokens) + 1)
    window_rows(model, token_keys(tokens), delta, yield_hook, alone[:-1])
    alone[-1] = 0
    index = torch.from_numpy(np.where(ids >= 0, np.searchsorted(tokens, ids), len(tokens))).to(model.device)
    rows = _new_rows(model, len(keys)) if out is None else out
    for start in range(0, len(keys), _CHUNK):
        rows[start : start + _CHUNK] = estimator(alone, index[start : start + _CHUNK])
        yield_hook()
    return rows


class LowerStates:
    """Sequences ready for the upper layers, kept as one row for each distinct window.

    With k = 0 only ids are kept, and the embeddings are computed with each batch. Without a `view` every token gets its
    own window's row; a view with estimates needs an `estimator`.
    """

    def __init__(
        self,
        model: HPLM,
        sequences: Sequence[NDArray[np.int64]],
        delta: TrainingAdapters | None = None,
        yield_hook: YieldHook = lambda: None,
        view: ViewWindows | None = None,
        estimator: RowEstimator | None = None,
    ) -> None:
        self._model = model
        self.lengths = np.asarray([len(ids) for ids in sequences], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        flat = np.concatenate(sequences)
        self._rows: Tensor | None = None
        if model.spec.k:
            windows = window_keys(flat, self.lengths, looks_back=model.spec.family.decodes)
            viewed = view(windows, self.lengths) if view else WindowView(windows)
            missed = np.zeros(len(windows), bool) if viewed.estimated is None else viewed.estimated
            known, place_of_known = np.unique(viewed.keys[~missed], return_inverse=True)
            others, place_of_others = np.unique(viewed.keys[missed], return_inverse=True)
            flat = np.empty(len(windows), np.int64)
            flat[~missed] = place_of_known.reshape(-1)
            flat[missed] = place_of_others.reshape(-1) + len(known)
            self._rows = _new_rows(model, len(known) + len(others))  # allocated once: gigabytes for much text
            window_rows(model, known, delta, yield_hook, self._rows[: len(known)])
            if len(others):
                if estimator is None:
                    raise ValueError("estimates are needed, and there is no estimator")
                estimated_rows(model, estimator, others, delta, yield_hook, self._rows[len(known) :])
        self._index = torch.from_numpy(flat.astype(np.int64))  # row of each token; its id if k = 0

    def __len__(self) -> int:
        return len(self.lengths)

    @torch.no_grad()
    def batch(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The chosen sequences, padded: hidden `[B, T, H]` in the model's dtype, mask bool `[B, T]`."""
        parts = [self._index[self._starts[i] : self._starts[i + 1]] for i in chosen]
        index = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True).to(self._model.device)  # [B, T]
        lengths = torch.from_numpy(self.lengths[list(chosen)])
        mask = (torch.arange(index.shape[1]) < lengths[:, None]).to(self._model.device)
        if self._rows is None:
            return self._model.embed(index), mask
        return self._model.merge(self._rows[index]), mask
