"""Storage, error and answers at every tolerance, with everything learnt before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.inheritance.answers import BASE, Answers, ask
from benchmarks.inheritance.learning import Learner, delta_name
from benchmarks.inheritance.plan import GENERAL
from benchmarks.inheritance.trees import Rows, TreeMaker, asked_of, general_asked, row_error
from hmi.bench import OneBase
from hmi.engine import Engine, EngineConfig
from hmi.knowledge import Function
from hmi.knowledge.lookup import KnowledgeTree
from hmi.models.families import load_tokenizer

__all__ = ["Case", "Measured", "measure"]

_MAX_TOKENS = 128  # as adapters and deltas are trained


@dataclass(frozen=True, slots=True)
class Case:
    """One tolerance.

    Attributes:
        entries, marks, bytes: Of the tables of all domains but the root, whose tenants ask for everything.
        hoisted_bytes: Of the whole tree where the root has no tenants.
        error: Relative, of rows; the mean over lookups of all domains.
    """

    tolerance: float
    entries: int
    marks: int
    bytes: int
    hoisted_bytes: int
    error: float
    answers: Mapping[str, Answers]


@dataclass(frozen=True, slots=True)
class Measured:
    """`without` are the answers where no domain has a delta."""

    cases: tuple[Case, ...]
    without: Mapping[str, Answers]
    device: str
    dtype: str


def measure(learner: Learner, files: Mapping[str, Path], say: Callable[[str], None]) -> Measured:
    """`files` are the deltas and adapters that the learner made, by name."""
    spec, plan, texts = learner.spec, learner.plan, learner.texts
    parents = {GENERAL: None, **dict.fromkeys(texts, GENERAL)}
    empty = KnowledgeTree(0, parents, {}, spec.row_dtype, spec.hidden_size)
    source = OneBase(BASE, learner.base, empty)
    source.adapters.update(files)
    config = EngineConfig(device=learner.device, dtype=learner.dtype)
    with Engine(config, source) as engine, tempfile.TemporaryDirectory() as folder:
        engine.load_base(BASE)
        without = ask(engine, texts, plan.seeds, _MAX_TOKENS, deltas=False)
        tokenizer = load_tokenizer(learner.base)
        asked = {domain: asked_of(tokenizer, text.all, _MAX_TOKENS) for domain, text in texts.items()}
        everything = {GENERAL: general_asked(asked, spec.vocab_size), **asked}
        functions = {domain: Function(BASE, delta_name(domain)) for domain in parents}
        rows = Rows(engine, spec)
        for domain, each in everything.items():
            say(f"{len(each.keys):,} rows of {domain}")
            rows.add(functions[domain], each.keys)
        maker = TreeMaker(Path(folder), spec, functions, rows)
        cases = []
        for tolerance in plan.tolerances:
            say(f"tolerance {tolerance:g}")
            tree = maker.make(everything, tolerance)
            hoisted = maker.make(asked, tolerance).bytes
            engine.publish_tree(BASE, tree)
            computed = engine.stats().computed_windows
            answers = ask(engine, texts, plan.seeds, _MAX_TOKENS)
            if engine.stats().computed_windows != computed:
                raise RuntimeError("windows of the test sentences were not in the tree and had to be computed")
            own = [tree.tables[domain] for domain in texts]
            case = Case(
                tolerance,
                sum(table.meta.entries for table in own),
                sum(table.meta.marks for table in own),
                sum(table.bytes for table in own),
                hoisted,
                float(np.mean([row_error(tree, domain, asked[domain], functions[domain], rows) for domain in texts])),
                answers,
            )
            cases.append(case)
        return Measured(tuple(cases), without, str(engine.device), str(engine.dtype).removeprefix("torch."))
