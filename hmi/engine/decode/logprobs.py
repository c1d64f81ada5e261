"""What is told of a text's tokens, kept in a few bytes for each while it grows."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from hmi.items import TokenBytes, TokenLogprobs

__all__ = ["LogprobBuffer"]


class LogprobBuffer:
    """
    Args:
        count: Of the likeliest tokens that are told for each place.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._ids, self._best_ids = array("i"), array("i")
        self._logprobs, self._best_logprobs = array("f"), array("f")

    def __len__(self) -> int:
        return len(self._ids)

    def begin(self, token: int) -> None:
        """With a prompt's first token, which nothing precedes."""
        nothing = np.full((1, self.count), np.nan, np.float32)
        self.add(np.array([token]), np.full(1, np.nan, np.float32), np.full((1, self.count), -1), nothing)

    def add(
        self,
        ids: NDArray[np.int64],
        logprobs: NDArray[np.float32],
        best_ids: NDArray[np.int64],
        best_logprobs: NDArray[np.float32],
    ) -> None:
        """The next `n` tokens: `[n]` and, of the likeliest in their places, `[n, count or more]`."""
        self._ids.frombytes(ids.astype(np.int32).tobytes())
        self._logprobs.frombytes(logprobs.astype(np.float32).tobytes())
        self._best_ids.frombytes(best_ids[:, : self.count].astype(np.int32).tobytes())
        self._best_logprobs.frombytes(best_logprobs[:, : self.count].astype(np.float32).tobytes())

    def result(self, token_bytes: TokenBytes) -> TokenLogprobs:
        shape = len(self), self.count
        return TokenLogprobs(
            token_bytes=token_bytes,
            ids=np.array(self._ids, np.int32),
            logprobs=np.array(self._logprobs, np.float32),
            best_ids=np.array(self._best_ids, np.int32).reshape(shape),
            best_logprobs=np.array(self._best_logprobs, np.float32).reshape(shape),
        )
