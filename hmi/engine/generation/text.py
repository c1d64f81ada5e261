"""One text that is continued: its tokens, and when it is at its end."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hmi.adapters.bank import Resident
from hmi.engine.request import Finish, Generation, TokenChance, Wish
from hmi.engine.work import Work

__all__ = ["Text"]


_SETTLING = 8  # tokens


@dataclass(slots=True, eq=False)
class Text:
    """
    Attributes:
        work: With the prompt's ids.
        most: Tokens that it may have in all.
        generated: Ids, newest last; `chances` of them, where they are asked for.
        prompt: Of the prompt's tokens, likewise.
        resident, pinned: Its adapter in the bank and the pin on it, from its first reading to its end.
    """

    work: Work
    wish: Wish
    most: int
    generated: list[int] = field(default_factory=list)
    chances: list[TokenChance] = field(default_factory=list)
    prompt: list[TokenChance | None] = field(default_factory=list)
    resident: Resident | None = None
    pinned: str | None = None
    is_pinned: bool = False
    finish: Finish | None = None
    _before_stop: str | None = None

    @property
    def ids(self) -> NDArray[np.int64]:
        """All of them, the prompt's first."""
        return np.concatenate([self.work.ids, np.asarray(self.generated, np.int64)])

    @property
    def length(self) -> int:
        return len(self.work.ids) + len(self.generated)

    @property
    def tells_chances(self) -> bool:
        return self.wish.logprobs is not None

    def last(self, count: int) -> list[int]:
        """The last `count` ids, -1 before the first."""
        few = [*self.work.ids[-count:].tolist(), *self.generated[-count:]][-count:]
        return [-1] * (count - len(few)) + few

    def accept(self, token: int) -> bool:
        """Take the next token; whether the text is at its end."""
        self.generated.append(token)
        spec = self.work.base.spec
        if (token in spec.eos_token_ids and not self.wish.ignore_eos) or (self.wish.stop and self._meets_stop()):
            self.finish = Finish.STOP
        elif self.length >= self.most:
            self.finish = Finish.LENGTH
        return self.finish is not None

    def result(self) -> Generation:
        own = self._decoded() if self._before_stop is None else self._before_stop
        return Generation(
            text=self._prompt_text() + own if self.wish.echo else own,
            tokens=tuple(self.generated),
            finish=self.finish or Finish.LENGTH,
            chances=tuple(self.chances),
            prompt=tuple(self.prompt),
        )

    def _meets_stop(self) -> bool:
        longest = max(map(len, self.wish.stop))
        # A tail tells whether there is one: tokens have a character or more, and a few settle where words begin.
        tail = self.work.base.tokenizer.decode(self.generated[-(longest + _SETTLING) :], skip_special_tokens=True)
        if not any(each in tail for each in self.wish.stop):
            return False
        text = self._decoded()
        found = [place for each in self.wish.stop if (place := text.find(each)) >= 0]
        if found:
            self._before_stop = text[: min(found)]
        return bool(found)

    def _prompt_text(self) -> str:
        given = self.work.item.text
        return self.work.base.tokenizer.decode(self.work.ids.tolist()) if given is None else given

    def _decoded(self) -> str:
        ended = self.generated[-1:] and self.generated[-1] in self.work.base.spec.eos_token_ids
        ids = self.generated[:-1] if ended and not self.wish.ignore_eos else self.generated
        return self.work.base.tokenizer.decode(ids, skip_special_tokens=True)
