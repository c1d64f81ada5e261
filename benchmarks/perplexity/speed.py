"""How fast decoders generate at each k, beside the ordinary model in the same run."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import alternate
from benchmarks.serving import make_computed_tree, results
from hmi.bench import OneBase
from hmi.engine import Engine, EngineConfig
from hmi.items import Generation, GenerationParams, Item, ModelRef, Sampling, Task
from hmi.knowledge import window_keys
from hmi.models.families import load_tokenizer
from hmi.spec import read_spec

_GENERAL = "general"
_ORDINARY = "k = 0"
Texts = list[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Speed:
    """`sequences` of `read` tokens are continued by `made` each, in `rounds`."""

    sequences: int
    read: int
    made: int
    rounds: int


FULL_SPEED = Speed(32, 96, 64, 5)
QUICK_SPEED = Speed(2, 8, 3, 1)


class _Server:
    """An engine that generates from the same prompts again and again."""

    def __init__(self, base: Path, prompts: Texts, plan: Speed, device: torch.device) -> None:
        self.spec = read_spec(base)
        self._name, self._made = base.name, plan.made
        # Rows that were computed are not kept, or the second round would not compute them.
        config = EngineConfig(device=str(device), miss_cache_bytes=0)
        self.engine = Engine(config, OneBase(base.name, base))
        self.engine.load_base(base.name)
        self.prompts = prompts

    def run(self) -> Texts:
        """The prompts and what came after each."""
        params = GenerationParams(max_tokens=self._made, sampling=Sampling(temperature=0), ignore_eos=True)
        model = ModelRef(self._name, _GENERAL, None)
        items = [Item(model, Task.GENERATE, tokens=prompt, params=params) for prompt in self.prompts]
        made = results(self.engine, items, Generation)
        return [(*prompt, *each.tokens) for prompt, each in zip(self.prompts, made, strict=True)]

    def know(self, texts: Texts, folder: Path) -> None:
        """Publish a tree of all windows of the texts."""
        lengths = np.array([len(text) for text in texts])
        keys = np.unique(window_keys(np.concatenate([np.array(text) for text in texts]), lengths, looks_back=True))
        self.engine.publish_tree(self._name, make_computed_tree(self.engine, self._name, self.spec, keys, folder))


def measure_speed(
    ordinary: Path, bases: Mapping[int, Path], prompts: Sequence[str], plan: Speed, device: torch.device
) -> dict[int, dict[str, Any]]:
    """By k, with every row computed and with every row held: tokens made in a second, the ratio over k = 0, and the
    share of windows that the tree held."""
    tokenizer = load_tokenizer(ordinary)
    ids = [tuple(tokenizer.encode(prompt).ids[: plan.read]) for prompt in prompts]
    ids = [each for each in ids if len(each) == plan.read][: plan.sequences]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {_ORDINARY: _Server(ordinary, ids, plan, device)}
        for k, base in bases.items():
            for how in ("computed", "held"):
                servers[f"{k} {how}"] = _Server(base, ids, plan, device)
        for server in servers.values():
            stack.callback(server.engine.close)
        for k in bases:
            servers[f"{k} held"].know(servers[f"{k} held"].run(), folder / str(k))
        timers = {name: partial(_seconds, server) for name, server in servers.items()}
        alternate(timers, 1)  # what is prepared once is not counted
        for server in servers.values():
            server.engine.frequencies.drain()
        seconds = alternate(timers, plan.rounds)
        hits = {name: _hits(server.engine) for name, server in servers.items()}
    made = len(ids) * plan.made
    found: dict[int, dict[str, Any]] = {}
    for k in bases:
        found[k] = {}
        for how in ("computed", "held"):
            name = f"{k} {how}"
            ratios = [slow / fast for slow, fast in zip(seconds[_ORDINARY], seconds[name], strict=True)]
            found[k][how] = {
                "tokens_s": round(made / statistics.median(seconds[name]), 1),
                "ratio": round(statistics.median(ratios), 3),
                "hit_rate": hits[name],
            }
    return found


def _seconds(server: _Server) -> float:
    begin = time.perf_counter()
    server.run()
    return time.perf_counter() - begin


def _hits(engine: Engine) -> float | None:
    used = engine.frequencies.drain()
    lookups = sum(each.lookups for each in used)
    return round(sum(each.hits for each in used) / lookups, 4) if lookups else None
