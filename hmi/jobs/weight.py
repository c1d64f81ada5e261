"""Estimates of the work in a line or a sequence, before it runs: shards and submissions are cut by them.

An estimate reads only what is cheap, refuses nothing, and ignores wrong values in a body.
"""

from __future__ import annotations

from dataclasses import dataclass

from hmi.items import Item
from hmi.schemas import CHAT, COMPLETIONS, DEFAULT_MAX_TOKENS, MAX_CHOICES, NO_LIMIT, BatchLine

_USUAL_TOKENS = 512  # of a text whose length is left to the model
_MOST_TOKENS = 4096  # of a text, whatever limit is given: few contexts are longer
_TOKEN_CHARACTERS = 4  # of English, for usual vocabularies
_PREFILL_TOKENS = 8  # cost as much as one generated token
_LOGPROB_BYTES = 256  # a token's text and log-probability, from the outcome to the line of the answer


@dataclass(frozen=True, slots=True)
class Weight:
    sequences: int = 0  # that the engine runs
    tokens: int = 0  # generated, with a share for those of the prompts; 0 for classes and embeddings
    bytes: int = 0  # of a line in the file; of a sequence, those of its answer besides its text

    def __add__(self, other: Weight) -> Weight:
        return Weight(self.sequences + other.sequences, self.tokens + other.tokens, self.bytes + other.bytes)

    @property
    def cost(self) -> int:
        """The estimated time on a device, in generated tokens. Fair order over tenants is by cost."""
        return max(1, self.sequences, self.tokens or _prefill_cost(self.bytes))

    def is_within(self, most: Weight) -> bool:
        return self.sequences <= most.sequences and self.tokens <= most.tokens and self.bytes <= most.bytes


def weigh_line(line: BatchLine, length: int) -> Weight:
    """Estimate a line of `length` bytes, whose body has not been validated."""
    body = line.body
    inputs = _input_count(body.get("input", body.get("prompt")))
    if line.url not in (COMPLETIONS, CHAT):
        return Weight(inputs, 0, length)
    choices = _valid(body.get("n"), MAX_CHOICES) or 1
    most = _valid(body.get("max_tokens"), NO_LIMIT)
    if line.url == CHAT:
        most = _valid(body.get("max_completion_tokens"), NO_LIMIT) or most or NO_LIMIT
    elif most is None:
        most = DEFAULT_MAX_TOKENS
    return Weight(inputs * choices, choices * (_prefill_cost(length) + inputs * _generated(most)), length)


def weigh_item(item: Item) -> Weight:
    """Estimate one sequence."""
    params = item.params
    if params is None:
        return Weight(1)
    if item.messages is not None:
        characters = sum(len(content) for _, content in item.messages)
    else:
        characters = len(item.text) if item.text is not None else len(item.tokens or ()) * _TOKEN_CHARACTERS
    generated = _generated(params.max_tokens)
    returned = generated + (characters // _TOKEN_CHARACTERS if params.echo else 0)
    logprobs = 0 if params.logprobs is None else returned * (1 + params.logprobs) * _LOGPROB_BYTES
    # Texts rarely reach a high limit, and a submission may be estimated too low.
    tokens = _prefill_cost(characters) + min(generated, _USUAL_TOKENS)
    return Weight(1, tokens, logprobs + (characters if params.echo else 0))


def _prefill_cost(characters: int) -> int:
    return characters // (_TOKEN_CHARACTERS * _PREFILL_TOKENS)


def _generated(max_tokens: int) -> int:
    return _USUAL_TOKENS if max_tokens == NO_LIMIT else min(max_tokens, _MOST_TOKENS)


def _input_count(value: object) -> int:
    """A list of token ids is one input."""
    return len(value) if isinstance(value, list) and value and not isinstance(value[0], int) else 1


def _valid(value: object, most: int) -> int | None:
    """The field's number; None where it is missing or will be refused."""
    return value if type(value) is int and 0 <= value <= most else None
