"""The systems' answers, from the engine that serves: trees, policies, deltas and adapters as in life."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.learning import Job, Learner
from benchmarks.accuracy.plan import DomainText, System
from benchmarks.accuracy.trees import GENERAL, MAX_TOKENS, tree_of
from hmi.bench import OneBase
from hmi.engine import Engine, EngineConfig
from hmi.items import Classification, Item, ModelRef, Task
from hmi.knowledge.lookup import KnowledgeTree
from hmi.spec import MissPolicy, read_spec

BASE = "base"
"""The base artifact's name, in place of a digest."""


@dataclass(frozen=True, slots=True)
class Asked:
    """
    Attributes:
        answers: By job, the label of every sentence that its domain was asked.
        hit_rate: By domain, the share of windows that the tree held; empty where nothing is looked up.
        tree_bytes: Of the tables of all domains.
    """

    answers: Mapping[Job, NDArray[np.str_]]
    hit_rate: Mapping[str, float]
    tree_bytes: int


def ask(learner: Learner, k: int, systems: tuple[System, ...]) -> Asked:
    """Every tenant of these systems, which share a base and their domains' deltas, or that there are none."""
    looks_up, has_delta = systems[0].looks_up, systems[0].has_delta
    base = learner.base(k if looks_up else 0)
    spec = read_spec(base)
    empty = KnowledgeTree(0, {GENERAL: None}, {}, spec.row_dtype, spec.hidden_size)
    source = OneBase(BASE, base, empty)
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
    labels = []
    for outcome in engine.submit(items).result():
        if outcome.error is not None:
            raise outcome.error
        if not isinstance(outcome.result, Classification):
            raise TypeError(f"a classification was asked for, not {outcome.result}")
        labels.append(outcome.result.label)
    return np.array(labels)
