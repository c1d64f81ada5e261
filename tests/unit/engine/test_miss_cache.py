"""No answer depends on the miss cache: whatever other tenants asked before, a tenant gets the same bytes."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hmi.adapters.formats import save_adapter
from hmi.engine import Engine
from hmi.engine.stages import DeviceRunner, Fetcher, PlannedBatch, StagedBatch
from hmi.engine.tasks import SequenceTask, Submission
from hmi.items import Embedding, Generation, GenerationParams, Item, ModelRef, Outcome, Sampling, Task
from hmi.knowledge import Function, Keys, functions_of, token_keys, union, window_keys
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import Table, TableMeta, encode, write_table
from hmi.models.convert import convert_pretrained
from hmi.spec import HPLMSpec, MissPolicy, RowDtype, Site
from tests.adapter_samples import lora_adapter
from tests.engines import FolderSource, tiny_engine
from tests.estimators import random_estimator, with_estimator
from tests.tiny import tiny_bert_folder, tiny_decoder_folder, tiny_gpt2

BASE = "k2"
PARENTS = {"general": None, "movies": "general", "news": "general"}
DELTAS = {"movies": "delta"}
FIRST_WORD, WORDS = 5, 8  # few words: tenants ask for the same windows
TEXTS = [(2, *words, 3) for words in itertools.product(range(FIRST_WORD, FIRST_WORD + WORDS), repeat=3)]
NO_ROOM, ONE_SET, PLENTY = 0, 1_500, 2**20  # bytes: nothing is kept; nearly all is evicted; all is kept


@dataclasses.dataclass(frozen=True)
class World:
    """A base model on disk with the delta of `movies`, and trees by what they hold: published versions."""

    source: FolderSource
    spec: HPLMSpec
    dtype: str
    trees: dict[str, KnowledgeTree]

    def engine(self, tree: str, miss_cache_bytes: int) -> Engine:
        engine = tiny_engine(self.source, dtype=self.dtype, miss_cache_bytes=miss_cache_bytes)
        engine.load_base(BASE)
        engine.publish_tree(BASE, self.trees[tree])
        return engine

    def item(self, domain: str, policy: MissPolicy, text: int) -> Item:
        ref = ModelRef(BASE, domain, None, policy, DELTAS.get(domain))
        if self.spec.family.decodes:
            params = GenerationParams(max_tokens=6, sampling=Sampling(temperature=0), logprobs=2, ignore_eos=True)
            return Item(ref, Task.GENERATE, tokens=_tokens(self.spec, text), params=params)
        return Item(ref, Task.EMBED, tokens=_tokens(self.spec, text))


@pytest.fixture(
    scope="module",
    params=[
        ("bert", False, RowDtype.INT8, "float32"),
        ("bert", True, RowDtype.INT8, "float32"),
        ("bert", False, RowDtype.FLOAT16, "bfloat16"),
        ("gpt2", False, RowDtype.INT8, "float32"),
        ("gpt2", True, RowDtype.INT8, "float32"),
    ],
    ids=["hBERT", "hBERT-estimates", "hBERT-bfloat16", "hGPT", "hGPT-estimates"],
)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    family, estimates, row_dtype, dtype = request.param
    folder = tmp_path_factory.mktemp("world")
    pretrained = folder / "pretrained"
    tiny_bert_folder(pretrained) if family == "bert" else tiny_decoder_folder(tiny_gpt2(), pretrained)
    spec = convert_pretrained(pretrained, folder / BASE, k=2, row_dtype=row_dtype)
    own = None
    if estimates:
        spec = with_estimator(folder / BASE, random_estimator(spec.hidden_size, seed=0))
        own = random_estimator(spec.hidden_size, seed=1).weights()
    source = FolderSource({BASE: folder / BASE})
    source.adapters["delta"] = folder / "delta.safetensors"
    lower = dataclasses.replace(spec, k=0, layers=2, estimator_size=0)
    delta = lora_adapter(np.random.default_rng(3), 2, spec=lower, sites=(Site.Q, Site.FC1))
    save_adapter(dataclasses.replace(delta, estimator=own), source.adapters["delta"])
    tokens = token_keys(np.arange(spec.vocab_size))
    some = union([tokens, _windows(spec, range(0, len(TEXTS), 7))])
    with tiny_engine(source, dtype=dtype, miss_cache_bytes=0) as engine:
        trees = {
            "none": source.tree(BASE),
            "tokens": _tree(engine, spec, folder / "tokens", 1, tokens),
            "some windows": _tree(engine, spec, folder / "some", 2, some),
            "not all tokens": _tree(engine, spec, folder / "few", 3, tokens[np.arange(len(tokens)) % 3 > 0]),
        }
    return World(source, spec, dtype, trees)


def _tokens(spec: HPLMSpec, text: int) -> tuple[int, ...]:
    return TEXTS[text][1:-1] if spec.family.decodes else TEXTS[text]


def _windows(spec: HPLMSpec, texts: Sequence[int]) -> Keys:
    tokens = [np.array(_tokens(spec, text)) for text in texts]
    lengths = np.array([len(each) for each in tokens])
    return np.unique(window_keys(np.concatenate(tokens), lengths, looks_back=spec.family.decodes))


def _tree(engine: Engine, spec: HPLMSpec, folder: Path, number: int, keys: Keys) -> KnowledgeTree:
    """The root's table and that of `movies`, which has a delta, hold the keys; `news` has no table."""
    functions = functions_of(BASE, PARENTS, DELTAS)
    tables = {}
    for domain in ("general", "movies"):
        function = functions[domain]
        rows = encode(engine.compute_rows(BASE, keys, function.delta), spec.row_dtype)
        meta = TableMeta(domain, function.digest, spec.row_dtype, spec.hidden_size, len(keys))
        write_table(folder / domain, meta, keys, rows)
        tables[domain] = Table.open(folder / domain)
    digests = {domain: function.digest for domain, function in functions.items()}
    return KnowledgeTree(number, PARENTS, tables, spec.row_dtype, spec.hidden_size, digests)


def _bytes(outcomes: Sequence[Outcome]) -> list[Any]:
    """All that a tenant can see of its outcomes, to the last bit."""
    found: list[Any] = []
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        match outcome.result:
            case Embedding(vector=vector):
                found.append(vector.tobytes())
            case Generation() as generation:
                found.append(repr(generation))
    assert len(found) == len(outcomes)
    return found


_QUERIES = st.lists(
    st.tuples(st.sampled_from(sorted(PARENTS)), st.sampled_from(MissPolicy), st.integers(0, len(TEXTS) - 1)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tree=st.sampled_from(["none", "tokens", "some windows", "not all tokens"]),
    miss_cache_bytes=st.sampled_from([NO_ROOM, ONE_SET, PLENTY]),
    others=st.lists(_QUERIES, max_size=5),
    probes=_QUERIES,
    asks_the_same=st.booleans(),
)
def test_a_tenant_gets_the_same_bytes_when_others_asked_anything_before(
    world: World,
    tree: str,
    miss_cache_bytes: int,
    others: list[list[tuple[str, MissPolicy, int]]],
    probes: list[tuple[str, MissPolicy, int]],
    asks_the_same: bool,
) -> None:
    items = [world.item(*probe) for probe in probes]
    with world.engine(tree, NO_ROOM) as engine:
        expected = [_bytes(engine.submit([item]).result(60)) for item in items]
    with world.engine(tree, miss_cache_bytes) as engine:
        for queries in others:
            engine.submit([world.item(*query) for query in queries]).result(60)
        if asks_the_same:
            exact = [(domain, MissPolicy.EXACT, text) for domain, _, text in probes]
            engine.submit([world.item(*each) for each in exact]).result(60)
        found = [_bytes(engine.submit([item]).result(60)) for item in items]
        again = [_bytes(engine.submit([item]).result(60)) for item in items]
    assert found == expected
    assert again == expected  # though its own windows are kept now


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[Item, list[NDArray[np.float32]]]:
    """What the upper layers got for each item's real tokens, once for each time that it was submitted."""
    seen: defaultdict[Item, list[NDArray[np.float32]]] = defaultdict(list)
    lower = DeviceRunner.lower

    def note(
        self: DeviceRunner, batch: StagedBatch, positions: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        hidden, computed = lower(self, batch, positions)
        if positions is None:
            for row, task in enumerate(batch.tasks):
                seen[task.item].append(hidden[row, : len(task.ids)].float().numpy())
        return hidden, computed

    monkeypatch.setattr(DeviceRunner, "lower", note)
    return seen


@pytest.mark.parametrize("miss_cache_bytes", [NO_ROOM, ONE_SET, PLENTY])
def test_the_rows_of_a_text_are_the_same_bytes_when_batch_mates_change(
    world: World, states: dict[Item, list[NDArray[np.float32]]], miss_cache_bytes: int
) -> None:
    """Estimates alone are near only: they are not rounded, and a product's last bits depend on its number of rows."""
    rng = np.random.default_rng(0)
    domains, policies = list(PARENTS), list(MissPolicy)
    with world.engine("some windows", miss_cache_bytes) as engine:
        for _ in range(12):
            queries = [(domains[rng.integers(3)], policies[rng.integers(2)], int(rng.integers(12))) for _ in range(8)]
            engine.submit([world.item(*query) for query in queries]).result(60)
    assert sum(len(found) > 1 for found in states.values()) > 20
    for item, found in states.items():
        estimates = bool(world.spec.estimator_size) and item.model.miss_policy is MissPolicy.BACKOFF
        for other in found[1:]:
            np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-5 if estimates else 0)


def test_a_batch_reads_one_version_when_another_is_published_while_it_looks_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one domain of this version and the next domain of another one; what is not published is never read."""
    items = [world.item(domain, MissPolicy.BACKOFF, text) for domain in PARENTS for text in (7, 40)]
    gather = KnowledgeTree.gather
    with world.engine("tokens", PLENTY) as engine:
        before = _lower(engine, items)

        def publish_and_gather(tree: KnowledgeTree, *query: Any, **options: Any) -> Any:
            engine.publish_tree(BASE, world.trees["some windows"])
            return gather(tree, *query, **options)

        monkeypatch.setattr(KnowledgeTree, "gather", publish_and_gather)
        assert _lower(engine, items) == before
        assert _lower(engine, items) != before


def _lower(engine: Engine, items: Sequence[Item]) -> bytes:
    """What the upper layers get for one batch of these items."""
    base, submission = engine._resources.models.get(BASE), Submission(items)
    tasks = [SequenceTask(submission, place, np.array(item.tokens), base) for place, item in enumerate(items)]
    fetcher = Fetcher(engine._resources)
    batch, _ = fetcher.fetch(PlannedBatch(1, base, tuple(tasks)))
    assert batch is not None
    with torch.inference_mode(), engine._runner.slot():
        hidden, _ = engine._runner.lower(batch)
    fetcher.release(batch)
    return hidden.float().numpy().tobytes()


def test_what_a_closed_domain_asked_is_computed_again_for_others(world: World) -> None:
    """So that no other tenant can tell by the time what it asked for, not even in the same batch."""
    item = world.item("movies", MissPolicy.EXACT, 5)
    refs = [dataclasses.replace(item.model, scope=scope) for scope in ("", "domain-1", "domain-2")]
    items = [dataclasses.replace(item, model=ref) for ref in refs]
    answers, computed = [], [0]
    with world.engine("tokens", PLENTY) as engine:
        for each in [*items, *items]:
            answers += _bytes(engine.submit([each]).result(60))
            computed.append(engine.stats().computed_windows)
    once = computed[1]
    assert computed == [0, once, 2 * once, 3 * once, 3 * once, 3 * once, 3 * once]
    assert len(set(answers)) == 1
    with world.engine("tokens", NO_ROOM) as engine:
        engine.submit(items[:1]).result(60)
        alone = engine.stats().computed_windows
        engine.submit(items).result(60)
        assert engine.stats().computed_windows == 4 * alone


@pytest.mark.parametrize("delta", [None, "delta"])
def test_a_rebuild_stores_the_same_bytes_when_it_takes_rows_from_the_miss_cache(
    world: World, delta: str | None
) -> None:
    domain = "news" if delta is None else "movies"
    keys = _windows(world.spec, range(90))
    with world.engine("none", PLENTY) as engine:
        before = engine.compute_rows(BASE, keys, delta)
        engine.submit([world.item(domain, MissPolicy.EXACT, text) for text in range(60)]).result(60)
        kept, _ = engine._resources.models.get(BASE).miss_cache.read(Function(BASE, delta).digest, keys)
        assert 0 < np.count_nonzero(kept) < len(keys)
        found = engine.compute_rows(BASE, keys, delta)
        computed = engine.compute_rows(BASE, keys, delta, fresh=True)
    assert _stored(found, world.spec) == _stored(computed, world.spec) == _stored(before, world.spec)


def _stored(rows: NDArray[np.float32], spec: HPLMSpec) -> tuple[bytes, bytes]:
    encoded = encode(rows, spec.row_dtype)
    return encoded.rows.tobytes(), b"" if encoded.scales is None else encoded.scales.tobytes()
