"""One text that is generated: its tokens, their log-probabilities, and when it ends."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hmi.adapters.tiers import Resident
from hmi.engine.tasks import SequenceTask
from hmi.items import Finish, Generation, GenerationParams, TokenBytes, TokenLogprobs

_CONTEXT = 8  # tokens, after which earlier ones do not change how later ones are decoded


class LogprobBuffer:
    """Log-probabilities of a growing sequence, in a few bytes for each token."""

    def __init__(self, count: int) -> None:
        self.count = count  # of the most likely tokens that are kept for each place
        self._ids, self._best_ids = array("i"), array("i")
        self._logprobs, self._best_logprobs = array("f"), array("f")

    def __len__(self) -> int:
        return len(self._ids)

    def begin(self, token: int) -> None:
        """Add a prompt's first token, which nothing precedes."""
        nothing = np.full((1, self.count), np.nan, np.float32)
        self.add(np.array([token]), np.full(1, np.nan, np.float32), np.full((1, self.count), -1), nothing)

    def add(
        self,
        ids: NDArray[np.int64],
        logprobs: NDArray[np.float32],
        best_ids: NDArray[np.int64],
        best_logprobs: NDArray[np.float32],
    ) -> None:
        """Add `n` tokens: `[n]` and, of the most likely ones in their places, `[n, count or more]`."""
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


@dataclass(slots=True, eq=False)
class GeneratingSequence:
    task: SequenceTask  # with the prompt's ids
    params: GenerationParams
    max_length: int  # tokens, the prompt's included
    token_bytes: TokenBytes  # of the base model's vocabulary
    generated: list[int] = field(default_factory=list)  # ids, newest last
    logprobs: LogprobBuffer | None = field(init=False)  # where the item asks for them
    resident: Resident | None = None  # its adapter on the device, from its first prefill to its end
    pin: str | None = None  # the adapter's key, for as long
    finish: Finish | None = None
    _before_stop: str | None = None
    _prompt_end: list[int] = field(init=False)  # last ids of the prompt that have a text
    _visible: list[int] = field(default_factory=list)  # generated ids that have a text

    def __post_init__(self) -> None:
        self.logprobs = None if self.params.logprobs is None else LogprobBuffer(self.params.logprobs)
        self._prompt_end = []
        for token in reversed(self.task.ids.tolist()):
            if self._has_text(token):
                self._prompt_end.insert(0, token)
                if len(self._prompt_end) >= _CONTEXT and not self._is_inside_character(token):
                    break

    @property
    def ids(self) -> NDArray[np.int64]:
        """Of all tokens, the prompt's first."""
        return np.concatenate([self.task.ids, np.asarray(self.generated, np.int64)])

    @property
    def length(self) -> int:
        return len(self.task.ids) + len(self.generated)

    def last(self, count: int) -> list[int]:
        """The last `count` ids, -1 before the first."""
        few = [*self.task.ids[-count:].tolist(), *self.generated[-count:]][-count:]
        return [-1] * (count - len(few)) + few

    def append(self, token: int) -> bool:
        """Append the next token. Returns whether the text ends with it."""
        self.generated.append(token)
        if token in self.task.base.spec.eos_token_ids and not self.params.ignore_eos:
            self.finish = Finish.STOP
        elif self._has_text(token):
            self._visible.append(token)
            if self.params.stop and self._meets_stop():
                self.finish = Finish.STOP
        if self.finish is None and self.length >= self.max_length:
            self.finish = Finish.LENGTH
        return self.finish is not None

    def result(self) -> Generation:
        own = self._own_text()
        text = own if self._before_stop is None else self._before_stop
        return Generation(
            text=self._prompt_text(own) + text if self.params.echo else text,
            tokens=tuple(self.generated),
            finish=self.finish or Finish.LENGTH,
            logprobs=None if self.logprobs is None else self.logprobs.result(self.token_bytes),
        )

    def _meets_stop(self) -> bool:
        # A token with a text has one byte or more, so a tail of as many tokens as bytes shows a stop string.
        tail = self._decode(self._tail(max(len(each.encode()) for each in self.params.stop) + _CONTEXT))
        if not any(each in tail for each in self.params.stop):
            return False
        text = self._own_text()
        found = [place for each in self.params.stop if (place := text.find(each)) >= 0]
        if found:
            self._before_stop = text[: min(found)]
        return bool(found)

    def _tail(self, count: int) -> list[int]:
        """The last `count` ids that have a text, the prompt's included, and more up to where a character begins."""
        ids = self._visible if len(self._visible) > count + _CONTEXT else self._prompt_end + self._visible
        start = max(0, len(ids) - count)
        # From within a character on, decoders lose more than it: those that fall back to bytes, all bytes in a row.
        while start and self._is_inside_character(ids[start]):
            start -= 1
        return ids[start:]

    def _has_text(self, token: int) -> bool:
        return token not in self.token_bytes.special and bool(self.token_bytes.of(token))

    def _is_inside_character(self, token: int) -> bool:
        """Whether the token begins within a character."""
        return 0x80 <= self.token_bytes.of(token)[0] < 0xC0

    def _own_text(self) -> str:
        """The generated text as it reads after the prompt: decoded alone, some tokenizers' texts lose a space."""
        before, whole = self._decode(self._prompt_end), self._decode(self._prompt_end + self._visible)
        while not whole.startswith(before):
            before = before[:-1]  # of the prompt's last character, which the generated tokens complete
        return whole[len(before) :]

    def _prompt_text(self, own: str) -> str:
        """The prompt's text before the generated one, `own`."""
        given = self.task.item.text
        return self._decode(self.task.ids.tolist() + self._visible).removesuffix(own) if given is None else given

    def _decode(self, ids: list[int]) -> str:
        return self.task.base.tokenizer.decode(ids, skip_special_tokens=True)
