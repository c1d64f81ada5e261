"""Language modelling: the probability of each next token of a completion rises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hmi.errors import InvalidInput
from hmi.models.families import HGpt
from hmi.training.data import ChatExample, CompletionExample
from hmi.training.reports import Metrics, language_metrics
from hmi.training.tasks.network import Network
from hmi.training.tasks.objective import Objective, Preprocessor, TaskData

_LOGITS = 512  # tokens whose logits are held at once in evaluation
Examples = Sequence[CompletionExample | ChatExample]


@dataclass(frozen=True, slots=True, eq=False)
class LanguageData(TaskData):
    ids: tuple[NDArray[np.int64], ...]  # each text's tokens, int64
    first: NDArray[np.int64]  # place of the first trained token of each text, from 1


class Language(Objective[LanguageData]):
    """The base's own output layer is the head."""

    def prepare(self, examples: Examples, texts: Preprocessor) -> LanguageData:
        pairs = []
        for number, example in enumerate(examples, start=1):
            try:
                pairs.append(_fit(*self._tokens(example, texts), texts.max_tokens))
            except InvalidInput as error:
                raise InvalidInput(f"example {number}: {error.message}", code=error.code) from error
        # A token is trained only if another one precedes it.
        pairs = [(prompt, completion) for prompt, completion in pairs if prompt and completion]
        if not pairs:
            raise InvalidInput("none of the texts has a second token, so there is nothing to learn")
        ids = tuple(np.asarray([*prompt, *completion], np.int64) for prompt, completion in pairs)
        return LanguageData(texts.states_of(ids), ids, np.asarray([len(prompt) for prompt, _ in pairs], np.int64))

    def _tokens(self, example: CompletionExample | ChatExample, texts: Preprocessor) -> tuple[list[int], list[int]]:
        """Ids of the prompt and of the completion with its end token, as in serving."""
        tokenizer, ends = texts.tokenizer, list(texts.spec.eos_token_ids[:1])
        if isinstance(example, ChatExample):
            if texts.chat is None:
                raise InvalidInput("the base model has no chat template, so it cannot be trained on messages")
            prompt = tokenizer.encode(texts.chat.render(example.messages), add_special_tokens=False).ids
            return prompt, tokenizer.encode(example.answer, add_special_tokens=False).ids + ends
        if example.prompt:
            completion = tokenizer.encode(example.completion, add_special_tokens=False).ids
            return tokenizer.encode(example.prompt).ids, completion + ends
        whole = tokenizer.encode(example.completion).ids + ends
        return whole[:1], whole[1:]

    def loss(self, network: Network, data: LanguageData, chosen: Sequence[int]) -> Tensor:
        hidden, _ = network.upper(data.states, chosen)
        states, targets = _trained_tokens(hidden, data, chosen)
        return F.cross_entropy(_decoder(network).logits(states).float(), targets)

    @torch.no_grad()
    def evaluate(self, network: Network, data: LanguageData) -> Metrics:
        total, right, count = 0.0, 0, 0
        for chosen, hidden, _ in network.evaluation_batches(data.states):
            states, targets = _trained_tokens(hidden, data, chosen)
            for some, expected in zip(torch.split(states, _LOGITS), torch.split(targets, _LOGITS), strict=True):
                logits = _decoder(network).logits(some).float()  # [n, vocabulary]
                total += float(F.cross_entropy(logits, expected, reduction="sum"))
                right += int((logits.argmax(-1) == expected).sum())
            count += len(targets)
        return language_metrics(total / count, right, count)


def _fit(prompt: list[int], completion: list[int], most: int) -> tuple[list[int], list[int]]:
    """Cut both together to `most` tokens: a prompt loses its beginning before a completion loses its end."""
    room = max(1, most - len(completion))
    prompt = prompt[-room:]
    return prompt, completion[: most - len(prompt)]


def _trained_tokens(hidden: Tensor, data: LanguageData, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
    """From hidden `[B, T, H]` the states `[n, H]` before each trained token, and those tokens `[n]`."""
    rows: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    for row, number in enumerate(chosen):
        ids, first = data.ids[number], int(data.first[number])
        rows += [row] * (len(ids) - first)
        places += range(first - 1, len(ids) - 1)
        targets += ids[first:].tolist()
    return hidden[rows, places], torch.tensor(targets, device=hidden.device)


def _decoder(network: Network) -> HGpt:
    if not isinstance(network.model, HGpt):
        raise InvalidInput("an encoder does not generate text; use a decoder", param="task")
    return network.model
