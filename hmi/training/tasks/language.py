"""How texts go on: the probability of each next token of a completion rises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hmi.adapters import Pooling
from hmi.errors import InvalidInput
from hmi.models.families import HGpt
from hmi.training.data import ChatExample, CompletionExample
from hmi.training.lower import LowerStates
from hmi.training.reports import Metrics, language_metrics
from hmi.training.tasks.network import Network
from hmi.training.tasks.objective import Preprocessor

__all__ = ["Language", "LanguagePart"]

_LOGITS = 512  # tokens whose logits are held at once in judging
Examples = Sequence[CompletionExample | ChatExample]


@dataclass(frozen=True, slots=True, eq=False)
class LanguagePart:
    """
    Attributes:
        ids: Each text's tokens, int64; what it is learnt from `first` on, from 1.
    """

    states: LowerStates
    ids: tuple[NDArray[np.int64], ...]
    first: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.states.lengths

    @property
    def tokens(self) -> NDArray[np.int64]:
        return self.states.lengths


class Language:
    """There is no head but the base's own, which gives every token's probability."""

    pooling = Pooling.MEAN  # of nothing
    labels: tuple[str, ...] = ()

    def prepare(self, examples: Examples, texts: Preprocessor) -> LanguagePart:
        pairs = []
        for number, example in enumerate(examples, start=1):
            try:
                pairs.append(_fitted(*self._tokens(example, texts), texts.max_tokens))
            except InvalidInput as error:
                raise InvalidInput(f"example {number}: {error.message}", code=error.code) from error
        # What nothing precedes cannot be learnt, nor what does not go on.
        pairs = [(prompt, completion) for prompt, completion in pairs if prompt and completion]
        if not pairs:
            raise InvalidInput("none of the texts has a second token, so nothing could be learnt")
        ids = tuple(np.asarray([*prompt, *completion], np.int64) for prompt, completion in pairs)
        return LanguagePart(texts.states_of(ids), ids, np.asarray([len(prompt) for prompt, _ in pairs], np.int64))

    def _tokens(self, example: CompletionExample | ChatExample, texts: Preprocessor) -> tuple[list[int], list[int]]:
        """Ids of the prompt and of the completion with its end, as serving has them."""
        tokenizer, ends = texts.tokenizer, list(texts.spec.eos_token_ids[:1])
        if isinstance(example, ChatExample):
            if texts.chat is None:
                raise InvalidInput("the base model has no chat template, so messages say nothing to it")
            prompt = tokenizer.encode(texts.chat.render(example.messages), add_special_tokens=False).ids
            return prompt, tokenizer.encode(example.answer, add_special_tokens=False).ids + ends
        if example.prompt:
            completion = tokenizer.encode(example.completion, add_special_tokens=False).ids
            return tokenizer.encode(example.prompt).ids, completion + ends
        whole = tokenizer.encode(example.completion).ids + ends
        return whole[:1], whole[1:]

    def loss(self, network: Network, part: LanguagePart, chosen: Sequence[int]) -> Tensor:
        hidden, _ = network.upper(part.states, chosen)
        states, targets = _learnt(hidden, part, chosen)
        return F.cross_entropy(_model(network).logits(states).float(), targets)

    @torch.no_grad()
    def judge(self, network: Network, part: LanguagePart) -> Metrics:
        total, right, count = 0.0, 0, 0
        for chosen, hidden, _ in network.judged(part.states):
            states, targets = _learnt(hidden, part, chosen)
            for some, wanted in zip(torch.split(states, _LOGITS), torch.split(targets, _LOGITS), strict=True):
                logits = _model(network).logits(some).float()
                total += float(F.cross_entropy(logits, wanted, reduction="sum"))
                right += int((logits.argmax(-1) == wanted).sum())
            count += len(targets)
        return language_metrics(total / count, right, count)

    def counts(self, part: LanguagePart) -> tuple[int, ...]:
        return ()

    def baseline(self, network: Network, learnt: LanguagePart, judging: LanguagePart) -> float:
        """Of the base model as it is."""
        return self.judge(network, judging).score


def _fitted(prompt: list[int], completion: list[int], most: int) -> tuple[list[int], list[int]]:
    """Both together of at most so many tokens: a prompt loses its beginning before a completion loses its end."""
    room = max(1, most - len(completion))
    prompt = prompt[-room:]
    return prompt, completion[: most - len(prompt)]


def _learnt(hidden: Tensor, part: LanguagePart, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
    """States `[n, H]` before each token that is learnt, and the tokens `[n]`; of hidden `[B, T, H]`."""
    rows: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    for row, number in enumerate(chosen):
        ids, first = part.ids[number], int(part.first[number])
        rows += [row] * (len(ids) - first)
        places += range(first - 1, len(ids) - 1)
        targets += ids[first:].tolist()
    return hidden[rows, places], torch.tensor(targets, device=hidden.device)


def _model(network: Network) -> HGpt:
    if not isinstance(network.model, HGpt):
        raise InvalidInput("an encoder does not say how a text goes on; take a decoder", param="task")
    return network.model
