"""What a line or a sequence asks for, guessed before it runs: by this, work is cut into pieces of bearable length.

Guesses are never refusals. They read only what is cheap, and what is wrong in a body counts as if it were not there.
"""

from __future__ import annotations

from dataclasses import dataclass

from hmi.items import Item
from hmi.schemas import CHAT, COMPLETIONS, DEFAULT_MAX_TOKENS, MAX_CHOICES, NO_LIMIT, BatchLine

__all__ = ["Weight", "weigh_item", "weigh_line"]

# What an answer is taken to have where its end is left to the model: most models end theirs before.
_USUAL_TOKENS = 512
# More are asked for to be on the safe side, or in vain: few contexts are longer.
_MOST_TOKENS = 4096
_TOKEN_CHARACTERS = 4  # of English, for vocabularies as they are
# Prompts are read many tokens at a time, for about the price of one token that is written.
_TOKENS_READ = 8
_CHANCE_BYTES = 256  # a token's text and log-probability, from the outcome to the line of the answer


@dataclass(frozen=True, slots=True)
class Weight:
    """Attributes:
    sequences: That the engine runs.
    tokens: That it writes, with a share for those of their prompts; 0 for what is only read.
    bytes: Of a line as it stands in the file; of a sequence, those that its answer holds beside its text.
    """

    sequences: int = 0
    tokens: int = 0
    bytes: int = 0

    def __add__(self, other: Weight) -> Weight:
        return Weight(self.sequences + other.sequences, self.tokens + other.tokens, self.bytes + other.bytes)

    @property
    def cost(self) -> int:
        """What running it is taken to ask of a device, in tokens written: by this, tenants take turns."""
        return max(1, self.sequences, self.tokens or _reading(self.bytes))

    def is_within(self, most: Weight) -> bool:
        return self.sequences <= most.sequences and self.tokens <= most.tokens and self.bytes <= most.bytes


def weigh_line(line: BatchLine, length: int) -> Weight:
    """Of a line of `length` bytes, whose body was not looked at yet and may be wrong."""
    body = line.body
    inputs = _count(body.get("input", body.get("prompt")))
    if line.url not in (COMPLETIONS, CHAT):
        return Weight(inputs, 0, length)
    choices = _whole(body.get("n"), MAX_CHOICES) or 1
    most = _whole(body.get("max_tokens"), NO_LIMIT)
    if line.url == CHAT:
        most = _whole(body.get("max_completion_tokens"), NO_LIMIT) or most or NO_LIMIT
    elif most is None:
        most = DEFAULT_MAX_TOKENS
    return Weight(inputs * choices, choices * (_reading(length) + inputs * _writing(most)), length)


def weigh_item(item: Item) -> Weight:
    """Of one sequence."""
    params = item.params
    if params is None:
        return Weight(1)
    characters = _characters(item)
    writing = _writing(params.max_tokens)
    told = writing + (characters // _TOKEN_CHARACTERS if params.echo else 0)
    chances = 0 if params.logprobs is None else told * (1 + params.logprobs) * _CHANCE_BYTES
    # A generous limit is no long answer, and what is handed over in pieces can bear to be guessed too short.
    return Weight(1, _reading(characters) + min(writing, _USUAL_TOKENS), chances + (characters if params.echo else 0))


def _reading(characters: int) -> int:
    return characters // (_TOKEN_CHARACTERS * _TOKENS_READ)


def _writing(max_tokens: int) -> int:
    return _USUAL_TOKENS if max_tokens == NO_LIMIT else min(max_tokens, _MOST_TOKENS)


def _characters(item: Item) -> int:
    if item.messages is not None:
        return sum(len(content) for _, content in item.messages)
    return len(item.text) if item.text is not None else len(item.tokens or ()) * _TOKEN_CHARACTERS


def _count(value: object) -> int:
    """Of inputs; a list of token ids is one."""
    return len(value) if isinstance(value, list) and value and not isinstance(value[0], int) else 1


def _whole(value: object, most: int) -> int | None:
    """The number that the field will be taken for; None where there is none, or it will be refused."""
    return value if type(value) is int and 0 <= value <= most else None
