"""Under the miss policy `backoff`, what no table holds is estimated and the lower layers do not run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hmi.adapters.formats import save_adapter
from hmi.engine import Engine
from hmi.items import Item, ModelRef, Task
from hmi.knowledge import Function, Keys, token_keys, window_keys
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import Table, TableMeta, encode, write_table
from hmi.models.convert import convert_pretrained
from hmi.spec import HPLMSpec, MissPolicy, Site
from tests.adapter_samples import lora_adapter
from tests.engines import FolderSource, numbers, tiny_engine
from tests.estimators import random_estimator, with_estimator
from tests.tiny import tiny_bert_folder

BASE = "k2"
TEXTS = [(2, 6, 7, 8, 3), (2, 7, 6, 3), (2, 9, 3), (2, 6, 7, 8, 9, 3)]
TOKENS = np.array([2, 3, 6, 7, 8, 9])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    folder = tmp_path_factory.mktemp("bases")
    convert_pretrained(tiny_bert_folder(folder / "bert"), folder / BASE, k=2)
    spec = with_estimator(folder / BASE, random_estimator(32, seed=1))
    source = FolderSource({BASE: folder / BASE})
    lower = dataclasses.replace(spec, k=0, layers=2, estimator_size=0)
    for name, own in (("plain", None), ("estimated", random_estimator(32, seed=2).weights())):
        source.adapters[name] = folder / f"{name}.safetensors"
        delta = lora_adapter(np.random.default_rng(3), 2, spec=lower, sites=(Site.Q, Site.FC1))
        save_adapter(dataclasses.replace(delta, estimator=own), source.adapters[name])
    return source


@pytest.fixture
def engine(source: FolderSource) -> Iterator[Engine]:
    with tiny_engine(source) as engine:
        engine.load_base(BASE)
        yield engine


def tree_of(engine: Engine, folder: Path, keys: Keys, delta: str | None = None) -> KnowledgeTree:
    spec: HPLMSpec = engine._resources.models.get(BASE).spec
    function = Function(BASE, delta)
    keys = np.unique(keys)
    rows = encode(engine.compute_rows(BASE, keys, delta, fresh=True), spec.row_dtype)
    meta = TableMeta("general", function.digest, spec.row_dtype, spec.hidden_size, len(keys), 0, None)
    write_table(folder / "general", meta, keys, rows, np.empty(0, np.uint64))
    tables = {"general": Table.open(folder / "general")}
    return KnowledgeTree(1, {"general": None}, tables, spec.row_dtype, spec.hidden_size, {"general": function.digest})


def items(policy: MissPolicy, delta: str | None = None) -> list[Item]:
    return [Item(ModelRef(BASE, "general", None, policy, delta), Task.EMBED, tokens=each) for each in TEXTS]


def windows() -> Keys:
    lengths = np.array([len(text) for text in TEXTS])
    return window_keys(np.concatenate([np.array(text) for text in TEXTS]), lengths)


def test_no_window_is_computed_when_the_tree_holds_the_tokens(engine: Engine, tmp_path: Path) -> None:
    engine.publish_tree(BASE, tree_of(engine, tmp_path, token_keys(TOKENS)))
    estimated = numbers(engine.submit(items(MissPolicy.BACKOFF)).result(60))
    assert engine.stats().computed_windows == 0
    exact = numbers(engine.submit(items(MissPolicy.EXACT)).result(60))
    assert engine.stats().computed_windows > 0
    assert min(np.abs(a - b).max() for a, b in zip(estimated, exact, strict=True)) > 1e-3


def test_what_the_tree_holds_is_no_estimate(engine: Engine, tmp_path: Path) -> None:
    engine.publish_tree(BASE, tree_of(engine, tmp_path, np.concatenate([windows(), token_keys(TOKENS)])))
    found = numbers(engine.submit(items(MissPolicy.BACKOFF)).result(60))
    assert engine.stats().computed_windows == 0
    for one, other in zip(found, numbers(engine.submit(items(MissPolicy.EXACT)).result(60)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_window_is_computed_when_the_tree_lacks_one_of_its_tokens(engine: Engine, tmp_path: Path) -> None:
    engine.publish_tree(BASE, tree_of(engine, tmp_path, token_keys(TOKENS[TOKENS != 9])))
    engine.submit(items(MissPolicy.BACKOFF)).result(60)
    # Of the windows with 9 in them: [CLS] and [SEP] beside it, and what is before and after it in the last text.
    assert engine.stats().computed_windows == len({*map(tuple, _windows_with(9))})


def _windows_with(token: int) -> list[tuple[int, int, int]]:
    padded = [(-1, *text, -1) for text in TEXTS]
    every = [text[at : at + 3] for text in padded for at in range(len(text) - 2)]
    return [(a, b, c) for a, b, c in every if token in (a, b, c)]


def test_a_domain_is_estimated_by_its_deltas_own_network(engine: Engine, tmp_path: Path) -> None:
    engine.publish_tree(BASE, tree_of(engine, tmp_path, token_keys(TOKENS), "estimated"))
    engine.submit(items(MissPolicy.BACKOFF, "estimated")).result(60)
    assert engine.stats().computed_windows == 0
    assert engine.estimate_error(BASE, "estimated") == pytest.approx(0.25)


def test_shorter_ngrams_stand_in_where_a_delta_brings_no_network(engine: Engine, tmp_path: Path) -> None:
    tree = tree_of(engine, tmp_path, token_keys(TOKENS), "plain")
    engine.publish_tree(BASE, tree)
    assert engine.estimate_error(BASE, "plain") is None
    found = numbers(engine.submit(items(MissPolicy.BACKOFF, "plain")).result(60))
    assert engine.stats().computed_windows == 0
    alone = [Item(ModelRef(BASE, "general", None, MissPolicy.BACKOFF, "plain"), Task.EMBED, tokens=(9,))]
    assert len(found) == len(TEXTS)
    assert np.isfinite(numbers(engine.submit(alone).result(60))[0]).all()
