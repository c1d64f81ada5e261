"""DESIGN's invariant 1: under the policy `exact` an answer does not depend on what the tree holds.

Random trees of random domains, some with deltas of their own, swapped while a job runs. What must come out is
worked out one sequence at a time, without a tree, by the plain model.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hmi.adapters import Activation, Adapter, AdapterKind, Lora
from hmi.adapters.formats import load_adapter, save_adapter
from hmi.adapters.maths import SingleAdapter
from hmi.engine import Engine
from hmi.engine.stages import ComputedBatch, StagedBatch
from hmi.errors import AdapterRefused, NotFound
from hmi.items import Item, ModelRef, Task
from hmi.knowledge import BACKOFF, Function, Keys, ancestor_chains, functions_of, token_keys, unpack, window_keys
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import Table, TableMeta, encode, round_trip, write_table
from hmi.models.convert import convert_pretrained
from hmi.models.families import HBert, load_hbert
from hmi.models.layers import RowEstimator
from hmi.spec import HPLMSpec, MissPolicy, RowDtype, Site
from hmi.training.lower import estimator_of
from tests.engines import FolderSource, numbers, tiny_engine
from tests.estimators import random_estimator, with_estimator
from tests.tiny import tiny_bert_folder
from tests.waiting import wait_until

BASE = "k2"
NAMES = ("general", "reviews", "movies", "news", "sport")
# `same` is another function by digest and gives the rows of the base: what is marked under it is exact.
DELTAS = ("left", "right", "same")
FIRST_WORD, WORDS = 5, 12  # few words: windows come again

Deltas = Mapping[str, str]


@dataclass(frozen=True)
class World:
    """A base model with deltas, on disk, as the plain model, and in an engine that rows are computed by.

    Last bits depend on how a row is computed, and where they are rounded to int8 a bit can become a whole step: what
    trees hold and what is expected is made of the engine's rows, which are held against the plain model's once.
    """

    source: FolderSource
    spec: HPLMSpec
    model: HBert
    engine: Engine
    folder: Path

    def rows(self, function: Function, keys: Keys) -> NDArray[np.float32]:
        return self.engine.compute_rows(BASE, keys, function.delta, fresh=True)

    def plain_rows(self, function: Function, keys: Keys) -> NDArray[np.float32]:
        delta = None if function.delta is None else SingleAdapter.of(load_adapter(self.source.adapters[function.delta]))
        with torch.no_grad():
            rows: NDArray[np.float32] = self.model.lower(torch.from_numpy(unpack(keys)), delta).numpy()
        return round_trip(rows, self.spec.row_dtype)

    def estimator(self, delta: str | None) -> RowEstimator | None:
        adapter = None if delta is None else load_adapter(self.source.adapters[delta])
        return estimator_of(self.model, adapter)

    def answer(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The embedding of a sequence whose windows have these rows `[T, H]`."""
        with torch.no_grad():
            hidden = self.model.upper(self.model.merge(torch.from_numpy(rows)[None]), torch.ones(1, len(rows)).bool())
            vector: NDArray[np.float32] = torch.nn.functional.normalize(hidden.mean(1), dim=-1)[0].numpy()
        return vector


def _random_delta(spec: HPLMSpec, *, seed: int, scale: float) -> Adapter:
    rng = np.random.default_rng(seed)
    lora = {}
    for layer, site in itertools.product(range(spec.k), Site):
        inputs, outputs = spec.site_shape(site)
        a, b = rng.standard_normal((2, inputs), np.float32), rng.standard_normal((outputs, 2), np.float32)
        lora[layer, site] = Lora(a * np.float32(0.3), b * np.float32(scale))
    return Adapter(AdapterKind.LORA, lora, {}, True, Activation.RELU, None)


@pytest.fixture(scope="module", params=[(RowDtype.INT8, False), (RowDtype.FLOAT16, False), (RowDtype.INT8, True)])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """With estimators of the base's rows and of some deltas', or with none."""
    row_dtype, estimates = request.param
    folder = tmp_path_factory.mktemp("world")
    spec = convert_pretrained(tiny_bert_folder(folder / "bert"), folder / BASE, k=2, row_dtype=row_dtype)
    if estimates:
        spec = with_estimator(folder / BASE, random_estimator(spec.hidden_size, seed=0))
    source = FolderSource({BASE: folder / BASE})
    for seed, name in enumerate(DELTAS):
        source.adapters[name] = folder / f"{name}.safetensors"
        delta = _random_delta(spec, seed=seed, scale=0.0 if name == "same" else 0.3)
        if estimates and name != "right":
            delta = dataclasses.replace(delta, estimator=random_estimator(spec.hidden_size, seed=seed).weights())
        save_adapter(delta, source.adapters[name])
    with tiny_engine(source) as engine:
        yield World(source, spec, load_hbert(folder / BASE), engine, folder)


@st.composite
def domain_trees(draw: st.DrawFn) -> tuple[dict[str, str | None], dict[str, str]]:
    """Parents of up to five domains, and the deltas that some have."""
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    parents: dict[str, str | None] = {names[0]: None}
    for place, name in enumerate(names[1:], start=1):
        parents[name] = draw(st.sampled_from(names[:place]))
    deltas = draw(st.dictionaries(st.sampled_from(names[1:] or names), st.sampled_from(DELTAS)))
    return parents, {domain: delta for domain, delta in deltas.items() if parents[domain] is not None}


def _tree(world: World, parents: Mapping[str, str | None], deltas: Deltas, *, number: int) -> KnowledgeTree:
    """Each domain holds a random part of all windows; one whose rows are those of its ancestors aliases some."""
    rng = np.random.default_rng(number)
    functions = functions_of(BASE, parents, deltas)
    lines = ancestor_chains(parents)
    windows = _all_windows()
    tables: dict[str, Table] = {}
    for domain in sorted(lines, key=lambda each: len(lines[each])):
        function, parent = functions[domain], parents[domain]
        held = windows[rng.random(len(windows)) < rng.choice([0, 0.1, 0.6, 1])]
        aliases = np.empty(0, np.uint64)
        above = functions[parent] if parent is not None else function
        if "same" in deltas.values() and {function.delta, above.delta} == {None, "same"}:
            marked = rng.random(len(held)) < 0.5
            held, aliases = held[~marked], held[marked]
        where = world.folder / f"{rng.integers(2**60)}"
        digest = above.digest if len(aliases) else None
        meta = TableMeta(
            domain, function.digest, world.spec.row_dtype, world.spec.hidden_size, len(held), len(aliases), digest
        )
        write_table(where, meta, held, encode(world.rows(function, held), world.spec.row_dtype), aliases)
        tables[domain] = Table.open(where)
    digests = {domain: function.digest for domain, function in functions.items()}
    return KnowledgeTree(number, parents, tables, world.spec.row_dtype, world.spec.hidden_size, digests)


def _all_windows() -> Keys:
    """A third of the trigrams that sentences are made of, all bigrams and all words alone."""
    words = np.arange(FIRST_WORD, FIRST_WORD + WORDS)
    grid = np.array(list(itertools.product(words, words, words)))[::3].reshape(-1)
    keys = window_keys(grid, np.full(len(grid) // 3, 3))
    return np.unique(np.concatenate([keys, *(shorten(keys) for shorten in BACKOFF)]))


def _items(parents: Mapping[str, str | None], deltas: Deltas, count: int, *, seed: int) -> list[Item]:
    rng = np.random.default_rng(seed)
    functions = functions_of(BASE, parents, deltas)
    items = []
    for _ in range(count):
        domain = str(rng.choice(list(parents)))
        policy = MissPolicy.BACKOFF if rng.random() < 0.3 else MissPolicy.EXACT
        words = rng.integers(FIRST_WORD, FIRST_WORD + WORDS, rng.integers(1, 20)).tolist()
        ref = ModelRef(BASE, domain, None, policy, functions[domain].delta)
        items.append(Item(ref, Task.EMBED, tokens=(2, *words, 3)))
    return items


def _expected(world: World, item: Item, tree: KnowledgeTree | None) -> NDArray[np.float32]:
    """The plain model's answer; under `backoff` with the rows that a tree has for each window by itself."""
    ids = np.array(item.tokens)
    keys = window_keys(ids, np.array([len(ids)]))
    rows = world.rows(Function(BASE, item.model.delta), keys)
    estimator = world.estimator(item.model.delta)
    if tree is not None and item.model.miss_policy is MissPolicy.BACKOFF and estimator is not None:
        rows = np.stack(
            [_estimated(tree, item.model.domain, keys[place], own, estimator) for place, own in enumerate(rows)]
        )
    elif tree is not None and item.model.miss_policy is MissPolicy.BACKOFF:
        found = [tree.lookup(item.model.domain, keys[place : place + 1], backoff=True) for place in range(len(keys))]
        rows = np.stack([each.rows[0] if each.hit[0] else own for each, own in zip(found, rows, strict=True)])
    return world.answer(rows)


def _estimated(
    tree: KnowledgeTree, domain: str, key: np.uint64, own: NDArray[np.float32], estimator: RowEstimator
) -> NDArray[np.float32]:
    """The held row, or what is estimated from those of the tokens; where one of these is not held, the window's own."""
    held = tree.lookup(domain, np.array([key]))
    row: NDArray[np.float32] = held.rows[0]
    if held.hit[0]:
        return row
    tokens = np.zeros((3, len(own)), np.float32)
    for place, token in enumerate(unpack(np.array([key]))[0]):
        if token >= 0:
            alone = tree.lookup(domain, token_keys(np.array([token])))
            if not alone.hit[0]:
                return own
            tokens[place] = alone.rows[0]
    found: torch.Tensor = estimator(torch.from_numpy(tokens), torch.tensor([[0, 1, 2]]))
    np.copyto(row, found.numpy()[0])
    return row


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=domain_trees(),
    seed=st.integers(0, 10**6),
    miss_cache_bytes=st.sampled_from([0, 5_000, 2**20]),
)
def test_an_answer_does_not_depend_on_the_tree_when_versions_are_swapped_under_a_job(
    world: World,
    shape: tuple[dict[str, str | None], dict[str, str]],
    seed: int,
    miss_cache_bytes: int,
) -> None:
    parents, deltas = shape
    items = _items(parents, deltas, 60, seed=seed)
    versions = [_tree(world, parents, deltas, number=seed * 10 + place) for place in range(1, 4)]
    with tiny_engine(world.source, miss_cache_bytes=miss_cache_bytes) as engine:
        engine.load_base(BASE)
        waiting = []
        for start, tree in zip(range(0, 60, 20), versions, strict=True):
            waiting.append(engine.submit(items[start : start + 20]))
            engine.publish_tree(BASE, tree)
        found = numbers([outcome for future in waiting for outcome in future.result(60)])
    for item, vector in zip(items, found, strict=True):
        served = [None, *versions] if item.model.miss_policy is MissPolicy.BACKOFF else [None]
        off = min(np.abs(vector - _expected(world, item, tree)).max() for tree in served)
        assert off < 1e-5, f"{item.model} is off by {off}"


def test_answers_are_the_same_when_a_batch_is_cut_into_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    parents: dict[str, str | None] = {"general": None, "movies": "general"}
    deltas = {"movies": "left"}
    items = _items(parents, deltas, 80, seed=2)
    tree = _tree(world, parents, deltas, number=4)
    with tiny_engine(world.source) as engine:
        engine.load_base(BASE)
        engine.publish_tree(BASE, tree)
        run = engine._runner._run

        def run_alone(batch: StagedBatch) -> ComputedBatch:
            if len(batch.tasks) > 1:
                raise RuntimeError("too large")
            return run(batch)

        monkeypatch.setattr(engine._runner, "_run", run_alone)
        found = numbers(engine.submit(items).result(60))
        again = numbers(engine.submit(items).result(60))
    for item, vector, second in zip(items, found, again, strict=True):
        np.testing.assert_allclose(vector, _expected(world, item, tree), atol=1e-5)
        np.testing.assert_allclose(second, vector, atol=1e-5)


def test_rows_of_the_tree_are_used_when_the_function_is_the_models(world: World) -> None:
    parents: dict[str, str | None] = {"general": None, "movies": "general"}
    tree = _tree(world, parents, {"movies": "left"}, number=3)
    everything = _whole(world, tree, "movies", Function(BASE, "left"))
    items = [
        Item(ModelRef(BASE, "movies", None, delta=delta), Task.EMBED, tokens=(2, 6, 7, 3))
        for delta in ("left", "right", None)
    ]
    with tiny_engine(world.source) as engine:
        engine.load_base(BASE)
        engine.publish_tree(BASE, everything)
        computed = []
        for item in items:
            numbers(engine.submit([item]).result(60))
            computed.append(engine.stats().computed_windows)
    assert computed == [0, 4, 8]


def _whole(world: World, tree: KnowledgeTree, domain: str, function: Function) -> KnowledgeTree:
    """The tree with a table of the domain that holds the windows of (2, 6, 7, 3)."""
    keys = np.sort(window_keys(np.array([2, 6, 7, 3]), np.array([4])))
    where = world.folder / f"whole-{np.random.default_rng().integers(2**60)}"
    meta = TableMeta(domain, function.digest, world.spec.row_dtype, world.spec.hidden_size, len(keys))
    write_table(where, meta, keys, encode(world.rows(function, keys), world.spec.row_dtype))
    functions = {each: str(tree.function_of(each)) for each in tree.parents}
    tables = {**tree.tables, domain: Table.open(where)}
    return KnowledgeTree(9, tree.parents, tables, world.spec.row_dtype, world.spec.hidden_size, functions)


def test_each_window_is_computed_once_when_domains_with_and_without_deltas_share_a_batch(world: World) -> None:
    refs = [
        ModelRef(BASE, domain, None, delta=delta)
        for domain, delta in (("general", None), ("movies", "left"), ("news", None), ("sport", "left"))
    ]
    items = [Item(ref, Task.EMBED, tokens=(2, 6, 7, 6, 7, 3)) for ref in refs]
    with tiny_engine(world.source) as engine:
        found = numbers(engine.submit(items).result(60))
        assert engine.stats().computed_windows == 2 * 6  # six different windows, two functions
        again = numbers(engine.submit(items).result(60))
        assert engine.stats().computed_windows == 2 * 6  # kept, though no tree holds them
    for item, vector, second in zip(items, found, again, strict=True):
        np.testing.assert_allclose(vector, _expected(world, item, None), atol=1e-5)
        np.testing.assert_array_equal(vector, second)


def test_rows_computed_ahead_are_those_of_the_delta_when_one_is_named(world: World) -> None:
    keys = _all_windows()[:100]
    with tiny_engine(world.source) as engine:
        for delta in (None, *DELTAS):
            rows = engine.compute_rows(BASE, keys, delta)
            np.testing.assert_allclose(rows, world.plain_rows(Function(BASE, delta), keys), atol=0.05)
            np.testing.assert_array_equal(engine.compute_rows(BASE, keys, delta, fresh=True), rows)
        assert np.array_equal(engine.compute_rows(BASE, keys), engine.compute_rows(BASE, keys, "same"))
        assert not np.allclose(engine.compute_rows(BASE, keys), engine.compute_rows(BASE, keys, "left"), atol=0.1)


def test_only_the_rows_that_need_it_fail_when_a_delta_is_damaged_or_missing(world: World, tmp_path: Path) -> None:
    upper = _random_delta(world.spec, seed=5, scale=0.3)
    wrong = Adapter(upper.kind, {(3, Site.Q): upper.lora[0, Site.Q]}, {}, True, Activation.RELU, None)
    source = FolderSource(world.source.bases)
    source.adapters = {**world.source.adapters, "upper": tmp_path / "upper.safetensors"}
    save_adapter(wrong, source.adapters["upper"])
    refs = [ModelRef(BASE, "general", None, delta=delta) for delta in (None, "gone", "upper", "left")]
    with tiny_engine(source) as engine:
        outcomes = engine.submit([Item(ref, Task.EMBED, tokens=(2, 6, 3)) for ref in refs]).result(60)
    assert [type(outcome.error) for outcome in outcomes] == [type(None), NotFound, AdapterRefused, type(None)]


def test_a_delta_is_loaded_once_for_a_batch_when_there_is_room_for_one(world: World) -> None:
    asked: list[str] = []

    class CountingSource(FolderSource):
        def adapter_file(self, digest: str) -> Path:
            asked.append(digest)
            return super().adapter_file(digest)

    source = CountingSource(world.source.bases)
    source.adapters = world.source.adapters
    refs = [ModelRef(BASE, "general", None, delta=delta) for delta in ("left", "gone", "right")]
    with tiny_engine(source, batch_rows=12, delta_bytes=0) as engine:
        outcomes = engine.submit([Item(ref, Task.EMBED, tokens=(2, 6, 3)) for ref in refs * 4]).result(60)
        batches = engine.stats().batches
    assert [type(outcome.error) for outcome in outcomes] == [type(None), NotFound, type(None)] * 4
    # To see whether it is sound, and where rows are missing once more.
    assert asked.count("gone") <= batches
    assert asked.count("left") <= 2 * batches
    assert asked.count("right") <= 2 * batches


def test_an_engine_is_busy_until_everything_is_answered(world: World) -> None:
    with tiny_engine(world.source) as engine:
        assert not engine.busy()
        future = engine.submit([Item(ModelRef(BASE, "general", None), Task.EMBED, tokens=(2, 6, 3))] * 50)
        assert engine.busy() or future.done()
        future.result(60)
        wait_until(lambda: not engine.busy())  # the future is resolved before the engine is idle
