"""The tree that a domain's own text gives, built as a rebuild builds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving import open_built_tree
from hmi.engine import Engine
from hmi.knowledge import Function, Keys, window_keys
from hmi.knowledge.build import build_tree
from hmi.knowledge.counts import DomainCounts
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.plan import PreviousTree, plan_tree
from hmi.knowledge.store import entry_bytes
from hmi.models.families import load_tokenizer
from hmi.spec import read_spec
from hmi.training.lower import encode

GENERAL = "general"
MAX_TOKENS = 128
_NODE_BYTES = 2**40  # no budget: a tree holds all of its domain's text


def tree_of(
    engine: Engine, name: str, base: Path, folder: Path, texts: Mapping[str, Sequence[str]], deltas: Mapping[str, str]
) -> KnowledgeTree:
    """Build the tree of every domain's windows and their backoff n-grams, with the unigrams at the root.

    `name` is the engine's name of the base artifact in the folder `base`; `deltas` are those of domains that have one.
    """
    spec, tokenizer = read_spec(base), load_tokenizer(base)
    counted = {}
    for domain, text in texts.items():
        sequences = encode(tokenizer, text, MAX_TOKENS)
        windows = window_keys(np.concatenate(sequences), np.array([len(ids) for ids in sequences]))
        keys, counts = np.unique(windows, return_counts=True)
        counted[domain] = DomainCounts(keys, counts.astype(np.float64), approximate_share=0.5)
    parents = {GENERAL: None, **dict.fromkeys(texts, GENERAL)}
    functions = {domain: Function(name, deltas.get(domain)) for domain in parents}
    known = PreviousTree.empty()
    found = {domain: engine.estimate_error(name, function.delta) for domain, function in functions.items()}
    means = {domain: error for domain, error in found.items() if error is not None}
    plan = plan_tree(
        counted,
        parents,
        functions,
        known.held,
        spec.vocab_size,
        _NODE_BYTES,
        entry_bytes(spec.row_dtype, spec.hidden_size),
        backoff=known.backoff.with_mean_errors(means),
    )

    def compute(function: Function, keys: Keys) -> NDArray[np.float32]:
        return engine.compute_rows(function.base, keys, function.delta)

    build_tree(
        folder,
        plan,
        known,
        compute,
        row_dtype=spec.row_dtype,
        hidden_size=spec.hidden_size,
        tolerance=0.0,
        progress=lambda progress: None,
    )
    return open_built_tree(folder, plan, spec)
