"""What the n-grams of the demonstration's four domains take on disk: each domain by itself, as a tree, with deltas and
marks.

The demonstration's pretrained model with k = 3, and its sentences. Every n-gram of a domain's text is held for it,
whatever it takes. `deltas`: the root and each domain have one, trained for a moment on their text; what longer training
does to rows, and what marks cost in accuracy, is `python -m benchmarks.inheritance`.

- `n-grams`: what each domain is asked for, added up.
- `rows`, `marks`, `bytes`: of all tables together, the root's unigrams left out, which every tree has. A mark takes 8
  bytes.
- `saved`: of the bytes that the same domains take without hoisting and without marks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.inheritance.learning import Learner, delta_name
from benchmarks.inheritance.plan import GENERAL, Plan, domain_texts
from benchmarks.inheritance.trees import Rows, TreeMaker, asked_of
from examples.demo import fetch_sentences, read_sentences
from hmi.bench import OneBase
from hmi.engine import Engine, EngineConfig
from hmi.errors import HmiError
from hmi.knowledge import Function, unigrams, union
from hmi.knowledge.lookup import KnowledgeTree
from hmi.models.families import load_tokenizer

__all__ = ["run"]

_BASE = "base"
_MAX_TOKENS = 128
_QUICK = Plan(
    k=3, most_training=80, most_test=0, general_steps=6, domain_steps=3, seeds=0, epochs=1, tolerances=(0, 0.05, 0.2)
)
_FULL = Plan(
    k=3,
    most_training=5000,
    most_test=0,
    general_steps=120,
    domain_steps=40,
    seeds=0,
    epochs=1,
    tolerances=(0, 0.02, 0.05, 0.1, 0.2),
)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Says why there are no figures where neither text nor model can be had."""
    plan = _QUICK if options.quick else _FULL
    try:
        return {"storage": _measure(options, plan)}
    except HmiError as error:
        if error.code not in ("text_unavailable", "model_unavailable"):
            raise
        return {"storage_not_measured": error.message}


def _measure(options: argparse.Namespace, plan: Plan) -> list[dict[str, Any]]:
    folder: Path = options.folder
    archive, _ = fetch_sentences(_cache())
    texts = domain_texts(read_sentences(archive), plan)
    learner = Learner(folder, plan, texts, options.device, options.dtype, say=_say)
    files = learner.learn()
    spec = learner.spec
    parents = {GENERAL: None, **dict.fromkeys(texts, GENERAL)}
    source = OneBase(_BASE, learner.base, KnowledgeTree(0, parents, {}, spec.row_dtype, spec.hidden_size))
    source.adapters.update(files)
    tokenizer = load_tokenizer(learner.base)
    asked = {domain: asked_of(tokenizer, text.all, _MAX_TOKENS) for domain, text in texts.items()}
    plain = dict.fromkeys(parents, Function(_BASE))
    own = {domain: Function(_BASE, delta_name(domain)) for domain in parents}
    with Engine(EngineConfig(device=options.device, dtype=options.dtype), source) as engine:
        rows = Rows(engine, spec)
        wanted = union([each.keys for each in asked.values()])
        everything = union([wanted, unigrams(spec.vocab_size)])
        for function in (plain[GENERAL], *own.values()):
            rows.add(function, everything if function in (plain[GENERAL], own[GENERAL]) else wanted)
        alone = TreeMaker(folder / "alone", spec, plain, rows)
        trees = {"no deltas, each by itself": [alone.make({domain: each}, 0) for domain, each in asked.items()]}
        trees["no deltas, hoisted"] = [TreeMaker(folder / "plain", spec, plain, rows).make(asked, 0)]
        maker = TreeMaker(folder / "own", spec, own, rows)
        for tolerance in plan.tolerances:
            trees[f"deltas, tolerance {tolerance:g}"] = [maker.make(asked, tolerance)]
        bare = alone.make({}, 0)
    found = [_row(name, each, bare) for name, each in trees.items()]
    asked_for = sum(len(each.keys) for each in asked.values())
    return [row | {"n-grams": asked_for, "saved": 1 - row["bytes"] / found[0]["bytes"]} for row in found]


def _row(name: str, trees: Sequence[KnowledgeTree], bare: KnowledgeTree) -> dict[str, Any]:
    """Of trees together, `bare` being what each of them has in any case."""
    metas = [table.meta for tree in trees for table in tree.tables.values()]
    return {
        "storage": name,
        "rows": sum(meta.entries for meta in metas) - len(trees) * bare.entries,
        "marks": sum(meta.marks for meta in metas),
        "bytes": sum(tree.bytes - bare.bytes for tree in trees),
    }


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmi"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
