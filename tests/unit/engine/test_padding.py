"""How much of the device's work is padding, on lengths as they are in tenants' text."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from hmi.engine import EngineConfig
from hmi.engine.config import resolve_batch_tokens
from hmi.engine.scheduler import BatchLimits, Entry, Scheduler
from hmi.settings import Settings

# Sequences of 1-4, 5-8, ... tokens in a thousand, counted with BERT's tokenizer in single sentences of four domains:
# product reviews, film reviews, newspaper editorials, and posts to a social network.
DOMAINS = {
    "products": [9, 84, 123, 148, 158, 136, 91, 74, 56, 38, 24, 17, 12, 8, 6, 3, 3, 2, 2, 6],
    "films": [1, 26, 68, 95, 122, 133, 138, 121, 101, 73, 53, 32, 19, 11, 4, 2, 1],
    "news": [2, 33, 86, 125, 145, 148, 129, 105, 82, 56, 34, 23, 12, 8, 3, 4, 2, 1, 1, 2],
    "posts": [2, 48, 111, 144, 139, 135, 120, 113, 95, 61, 23, 6, 3, 1],
}
_BIN = 4
_AHEAD = EngineConfig().queue_batches + 1  # taken before the device wants them: those fetched, one being fetched


@dataclass(frozen=True)
class Served:
    padding_share: float
    mean_tokens: float  # of a batch, padding counted
    most_batches_waited: int


def _lengths(domain: str, count: int, rng: random.Random) -> list[int]:
    bins = rng.choices(range(len(DOMAINS[domain])), DOMAINS[domain], k=count)
    return [max(3, _BIN * number + rng.randint(1, _BIN)) for number in bins]


def _limits() -> BatchLimits:
    config = EngineConfig()
    tokens = resolve_batch_tokens(config.batch_tokens, torch.device("cpu"))
    return BatchLimits(tokens, config.batch_rows, config.padding_share, config.batch_cost)


def _serve(shards: Iterator[list[int]], submitters: int) -> Served:
    """Each submitter hands in a shard, waits for the last of its sequences, and hands in the next one."""
    scheduler: Scheduler[int] = Scheduler(_limits())
    missing: dict[int, int] = {}  # sequences of a shard that have not run
    came: dict[int, int] = {}  # batches taken before the shard came
    numbers = itertools.count()
    fetched: deque[list[Entry[int]]] = deque()
    batches: list[list[Entry[int]]] = []
    waited = 0

    def submit() -> None:
        lengths = next(shards, None)
        if lengths is not None:
            number = next(numbers)
            missing[number], came[number] = len(lengths), len(batches)
            scheduler.add([Entry(length, "base", number) for length in lengths])

    for _ in range(submitters):
        submit()
    while len(scheduler) or fetched:
        while len(scheduler) and len(fetched) <= _AHEAD:
            batch = scheduler.take_batch()
            waited = max(waited, *(len(batches) - came[entry.payload] for entry in batch))
            fetched.append(batch)
            batches.append(batch)
        for entry in fetched.popleft():
            missing[entry.payload] -= 1
            if not missing[entry.payload]:
                submit()
    padded = [len(batch) * batch[0].length for batch in batches]
    real = sum(entry.length for batch in batches for entry in batch)
    return Served(1 - real / sum(padded), sum(padded) / len(padded), waited)


def _shards(lines: int, total: int) -> Iterator[list[int]]:
    """Shards of the four domains in rotation, each of one domain as a tenant's are."""
    rng = random.Random(11)
    for domain in itertools.islice(itertools.cycle(DOMAINS), total // lines):
        yield _lengths(domain, lines, rng)


def test_padding_is_under_one_in_twenty_five_when_four_threads_hand_in_shards() -> None:
    served = _serve(_shards(Settings.model_fields["shard_lines"].default, 20_000), submitters=4)
    assert served.padding_share < 0.04
    assert served.mean_tokens > 900
    assert served.most_batches_waited <= 32


def test_batches_are_half_full_when_eight_threads_hand_in_shards() -> None:
    served = _serve(_shards(Settings.model_fields["shard_lines"].default, 20_000), submitters=8)
    assert served.padding_share < 0.02
    assert served.mean_tokens > 1024
    assert served.most_batches_waited <= 40


@pytest.mark.parametrize("domains", [list(DOMAINS), ["posts"]])
def test_padding_is_under_one_in_a_hundred_when_one_job_of_thousands_waits(domains: list[str]) -> None:
    rng = random.Random(12)
    lengths = [length for domain in domains for length in _lengths(domain, 5000 // len(domains), rng)]
    rng.shuffle(lengths)
    served = _serve(iter([lengths]), submitters=1)
    assert served.padding_share < 0.01
    assert served.mean_tokens > 1500
