"""The systems' answers and speed, from the engine that serves: trees, policies, deltas, adapters."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.learning import Job, Learner
from benchmarks.accuracy.plan import DomainText, System
from benchmarks.accuracy.trees import MAX_TOKENS, tree_of
from benchmarks.serving import BACKOFF, EXACT, ORDINARY, Query, Rate, Server, compare, results
from hmi.bench import OneBase
from hmi.engine import Engine, EngineConfig
from hmi.items import Classification, Item, ModelRef, Task
from hmi.spec import MissPolicy

ALL_HELD = "exact, all held"
_ROUNDS = 3
BASE = "base"  # the base artifact's name, in place of a digest


@dataclass(frozen=True, slots=True)
class Asked:
    answers: Mapping[Job, NDArray[np.str_]]  # the label of every test sentence of the job's domain
    hit_rate: Mapping[str, float]  # by domain, the share of windows that the tree held; empty without lookups
    tree_bytes: int  # of the tables of all domains


def ask(learner: Learner, k: int, systems: tuple[System, ...]) -> Asked:
    """Every tenant of these systems, which share a base and their domains' deltas, or that there are none."""
    looks_up, has_delta = systems[0].looks_up, systems[0].has_delta
    base = learner.base(k if looks_up else 0)
    source = OneBase(BASE, base)
    jobs = [job for system in systems for job in learner.jobs(system, 0 if system.ordinary else k)]
    source.adapters.update({job.name: learner.adapter(job) for job in jobs})
    deltas = {domain: f"delta-{domain}" for domain in learner.texts} if has_delta else {}
    source.adapters.update({name: learner.delta(k, domain) for domain, name in deltas.items()})
    config = EngineConfig(device=learner.device, dtype=learner.dtype)
    with Engine(config, source) as engine, tempfile.TemporaryDirectory() as folder:
        engine.load_base(BASE)
        tree_bytes = 0
        if looks_up:
            training = {domain: [each.text for each in text.training] for domain, text in learner.texts.items()}
            tree = tree_of(engine, BASE, base, Path(folder), training, deltas)
            engine.publish_tree(BASE, tree)
            tree_bytes = sum(table.bytes for table in tree.tables.values())
            engine.frequencies.drain()
        answers = {job: _answers(engine, job, learner.texts[job.domain], deltas.get(job.domain)) for job in jobs}
        used = engine.frequencies.drain() if looks_up else []
    hits = {each.domain: each.hits / each.lookups for each in used if each.lookups}
    return Asked(answers, hits, tree_bytes)


def _answers(engine: Engine, job: Job, text: DomainText, delta: str | None) -> NDArray[np.str_]:
    policy = MissPolicy.BACKOFF if job.system.backs_off else MissPolicy.EXACT
    model = ModelRef(BASE, job.domain, job.name, policy, delta)
    items = [Item(model, Task.CLASSIFY, text=each.text, truncate_to=MAX_TOKENS) for each in text.asked]
    return np.array([each.label for each in results(engine, items, Classification)])


def measure_speed(learner: Learner, k: int) -> Mapping[str, Rate]:
    """The ordinary model; `exact` and `backoff` with the tree of the training text; `exact` where the tree knows every
    window. Without adapters: what they cost is the same in all of them."""
    texts = learner.texts
    training = {domain: [each.text for each in text.training] for domain, text in texts.items()}
    everything = {domain: [*training[domain], *(each.text for each in text.asked)] for domain, text in texts.items()}
    queries: list[Query] = [(domain, each.text) for domain, text in texts.items() for each in text.asked]
    portions = [queries[turn::_ROUNDS] for turn in range(_ROUNDS)]
    config = EngineConfig(device=learner.device, dtype=learner.dtype)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        servers = {ORDINARY: stack.enter_context(Server(learner.base(0), config))}
        for name, policy, held in (
            (EXACT, MissPolicy.EXACT, training),
            (BACKOFF, MissPolicy.BACKOFF, training),
            (ALL_HELD, MissPolicy.EXACT, everything),
        ):
            server = stack.enter_context(Server(learner.base(k), config, policy))
            server.publish(tree_of(server.engine, server.base, learner.base(k), Path(folder, name), held, {}))
            servers[name] = server
        return compare(servers, portions)
