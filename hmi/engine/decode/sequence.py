"""One text that is continued: its tokens, and when it is at its end."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hmi.adapters.tiers import Resident
from hmi.engine.decode.logprobs import LogprobBuffer
from hmi.engine.work import SequenceTask
from hmi.items import Finish, Generation, GenerationParams, TokenBytes

__all__ = ["Text"]


_SETTLING = 8  # tokens, after which nothing before them changes how others are decoded


@dataclass(slots=True, eq=False)
class Text:
    """
    Attributes:
        work: With the prompt's ids.
        most: Tokens that it may have in all.
        pieces: Of the base model's tokens.
        generated: Ids, newest last.
        told: Of the tokens, where that is asked for.
        resident, pinned: Its adapter in the bank and the pin on it, from its first reading to its end.
    """

    work: SequenceTask
    params: GenerationParams
    most: int
    pieces: TokenBytes
    generated: list[int] = field(default_factory=list)
    told: LogprobBuffer | None = field(init=False)
    resident: Resident | None = None
    pinned: str | None = None
    is_pinned: bool = False
    finish: Finish | None = None
    _before_stop: str | None = None
    _front: list[int] = field(init=False)
    _shown: list[int] = field(default_factory=list)  # of those generated, the ones that have a text

    def __post_init__(self) -> None:
        self.told = None if self.params.logprobs is None else LogprobBuffer(self.params.logprobs)
        self._front = []
        for token in reversed(self.work.ids.tolist()):
            if self._has_text(token):
                self._front.insert(0, token)
                if len(self._front) >= _SETTLING and not self._continues(token):
                    break

    @property
    def ids(self) -> NDArray[np.int64]:
        """All of them, the prompt's first."""
        return np.concatenate([self.work.ids, np.asarray(self.generated, np.int64)])

    @property
    def length(self) -> int:
        return len(self.work.ids) + len(self.generated)

    def last(self, count: int) -> list[int]:
        """The last `count` ids, -1 before the first."""
        few = [*self.work.ids[-count:].tolist(), *self.generated[-count:]][-count:]
        return [-1] * (count - len(few)) + few

    def accept(self, token: int) -> bool:
        """Take the next token; whether the text is at its end."""
        self.generated.append(token)
        if token in self.work.base.spec.eos_token_ids and not self.params.ignore_eos:
            self.finish = Finish.STOP
        elif self._has_text(token):
            self._shown.append(token)
            if self.params.stop and self._meets_stop():
                self.finish = Finish.STOP
        if self.finish is None and self.length >= self.most:
            self.finish = Finish.LENGTH
        return self.finish is not None

    def result(self) -> Generation:
        own = self._decoded()
        text = own if self._before_stop is None else self._before_stop
        return Generation(
            text=self._before(own) + text if self.params.echo else text,
            tokens=tuple(self.generated),
            finish=self.finish or Finish.LENGTH,
            logprobs=None if self.told is None else self.told.result(self.pieces),
        )

    def _meets_stop(self) -> bool:
        # Tokens that have a text have a byte of it or more, so a tail of so many tells whether there is one.
        tail = self._decode(self._ending(max(len(each.encode()) for each in self.params.stop) + _SETTLING))
        if not any(each in tail for each in self.params.stop):
            return False
        text = self._decoded()
        found = [place for each in self.params.stop if (place := text.find(each)) >= 0]
        if found:
            self._before_stop = text[: min(found)]
        return bool(found)

    def _ending(self, count: int) -> list[int]:
        """The last `count` ids that have a text, the prompt's among them, and a few more where a character began."""
        ids = self._shown if len(self._shown) > count + _SETTLING else self._front + self._shown
        start = max(0, len(ids) - count)
        # Where one is cut, decoders lose more than it: those that fall back to bytes, all bytes in a row.
        while start and self._continues(ids[start]):
            start -= 1
        return ids[start:]

    def _has_text(self, token: int) -> bool:
        return token not in self.pieces.special and bool(self.pieces.of(token))

    def _continues(self, token: int) -> bool:
        """Whether it begins within a character."""
        return 0x80 <= self.pieces.of(token)[0] < 0xC0

    def _decoded(self) -> str:
        """What was generated, as it reads after the prompt: decoded alone, some tokenizers' texts lose a space."""
        before, whole = self._decode(self._front), self._decode(self._front + self._shown)
        while not whole.startswith(before):
            before = before[:-1]  # of the prompt's last character, which is whole only with what was generated
        return whole[len(before) :]

    def _before(self, own: str) -> str:
        """The prompt's text, before what was generated."""
        given = self.work.item.text
        return self._decode(self.work.ids.tolist() + self._shown).removesuffix(own) if given is None else given

    def _decode(self, ids: list[int]) -> str:
        return self.work.base.tokenizer.decode(ids, skip_special_tokens=True)
