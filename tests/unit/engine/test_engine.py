"""The engine's promises: DESIGN's invariants 1, 3 and 4, and that every item gets one answer."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from hmi.adapters import AdapterKind
from hmi.adapters.formats import save_adapter
from hmi.adapters.maths.plan import GatheredPlan
from hmi.engine import Engine, EngineConfig
from hmi.engine.stages import ComputedBatch, StagedBatch
from hmi.errors import AdapterRefused, Cancelled, ContextTooLong, InvalidInput, NotFound
from hmi.items import Classification, Embedding, Item, ModelRef, Task
from hmi.knowledge import functions_of, window_keys
from hmi.knowledge.counts import DomainCounts
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.plan import plan_tree
from hmi.knowledge.store import Table, TableMeta, encode, write_table
from hmi.models.convert import convert_pretrained
from hmi.spec import MissPolicy, read_spec
from tests.engines import FolderSource, keep_batches, numbers, random_adapter, tiny_engine
from tests.tiny import tiny_bert_folder

PARENTS = {"general": None, "reviews": "general", "movies": "reviews", "news": "general"}


def _text(rng: random.Random, words: int) -> str:
    return " ".join(f"w{rng.randrange(40)}" for _ in range(words))


def _items(base: str, count: int, *, seed: int = 1, policy: MissPolicy = MissPolicy.EXACT) -> list[Item]:
    rng = random.Random(seed)
    return [
        Item(
            ModelRef(base, rng.choice(list(PARENTS)), f"{base}-{rng.randrange(12)}", policy),
            Task.CLASSIFY if rng.random() < 0.8 else Task.EMBED,
            text=_text(rng, rng.randrange(1, 30)),
        )
        for _ in range(count)
    ]


def _build_tree(
    engine: Engine, base: str, source: FolderSource, folder: Path, number: int, share: float
) -> KnowledgeTree:
    """A tree with a random part of what `_items` will ask for, spread over the domains."""
    spec, rng = read_spec(source.bases[base]), np.random.default_rng(number)
    tables = {}
    ids = rng.integers(5, 45, 600)
    keys = np.unique(window_keys(ids, np.full(30, 20)))
    parts = {"general": keys[rng.random(len(keys)) < share], "movies": keys[rng.random(len(keys)) < share]}
    counts = {domain: DomainCounts(part, np.ones(len(part))) for domain, part in parts.items()}
    functions = functions_of(base, PARENTS, {})
    plan = plan_tree(counts, PARENTS, functions, {}, spec.vocab_size, node_bytes=10**9, row_bytes=44)
    for domain, planned in plan.tables.items():
        where = folder / str(number) / domain
        where.mkdir(parents=True)
        meta = TableMeta(domain, base, spec.row_dtype, spec.hidden_size, len(planned))
        write_table(where, meta, planned, encode(engine.compute_rows(base, planned), spec.row_dtype))
        tables[domain] = Table.open(where)
    return KnowledgeTree(number, PARENTS, tables, spec.row_dtype, spec.hidden_size)


@pytest.mark.parametrize("base", ["k0", "k2"])
def test_an_answer_does_not_depend_on_batch_mates_when_tenants_are_mixed(source: FolderSource, base: str) -> None:
    items = _items(base, 60)
    with tiny_engine(source) as engine:
        together = numbers(engine.submit(items).result(60))
        shuffled = list(range(len(items)))
        random.Random(3).shuffle(shuffled)
        again = numbers(engine.submit([items[i] for i in shuffled]).result(60))
        alone = [numbers(engine.submit([item]).result(60))[0] for item in items]
    for position, index in enumerate(shuffled):
        np.testing.assert_allclose(again[position], together[index], atol=1e-5)
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, many, atol=1e-5)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """Base `k2` as wide as a small real model: a product of this size has other last bits for other batch sizes."""
    root = tmp_path_factory.mktemp("wide")
    folder = tiny_bert_folder(root / "bert", hidden_size=384, intermediate_size=768, num_attention_heads=12)
    convert_pretrained(folder, root / "k2", k=2)
    source = FolderSource({"k2": root / "k2"})
    for number in range(12):
        kind, rank = ((AdapterKind.LORA, 8), (AdapterKind.BOTTLENECK, 16))[number % 2]
        source.adapters[f"k2-{number}"] = root / f"{number}.safetensors"
        save_adapter(
            random_adapter(read_spec(root / "k2"), kind, rank, 3, seed=number), source.adapters[f"k2-{number}"]
        )
    return source


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_computed_row_is_the_same_to_the_bit_when_other_windows_are_computed_with_it(
    wide: FolderSource, dtype: str
) -> None:
    keys = np.unique(window_keys(np.random.default_rng(4).integers(5, 100, 1000), np.full(100, 10)))
    order = np.random.default_rng(5).permutation(len(keys))
    with Engine(EngineConfig(device="cpu", dtype=dtype, threads=1), wide) as engine:
        together = engine.compute_rows("k2", keys)
        np.testing.assert_array_equal(engine.compute_rows("k2", keys[order]), together[order])
        for index in range(0, len(keys), 50):
            np.testing.assert_array_equal(engine.compute_rows("k2", keys[[index]])[0], together[index])


def test_an_answer_does_not_depend_on_batch_mates_when_missing_rows_are_rounded(wide: FolderSource) -> None:
    items = _items("k2", 60)
    with tiny_engine(wide) as engine:
        together = numbers(engine.submit(items).result(60))
        alone = [numbers(engine.submit([item]).result(60))[0] for item in items]
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, many, atol=1e-5)


def test_answers_are_the_same_when_the_tree_is_empty_partial_or_swapped_during_the_job(
    source: FolderSource, tmp_path: Path
) -> None:
    items = _items("k2", 80)
    with tiny_engine(source) as engine:
        empty = numbers(engine.submit(items).result(60))
        for number, share in enumerate((0.2, 0.6, 1.0), start=1):
            running = engine.submit(items)
            engine.publish_tree("k2", _build_tree(engine, "k2", source, tmp_path, number, share))
            for outcome in (running, engine.submit(items)):
                for expected, found in zip(empty, numbers(outcome.result(60)), strict=True):
                    np.testing.assert_allclose(found, expected, atol=1e-5)
        assert engine.stats().trees[0].number == 3


def test_lookups_are_counted_by_domain_and_version_when_items_run(source: FolderSource, tmp_path: Path) -> None:
    items = _items("k2", 30)
    with tiny_engine(source) as engine:
        engine.submit(items).result(60)
        before = engine.frequencies.drain()
        engine.publish_tree("k2", _build_tree(engine, "k2", source, tmp_path, 1, 1.0))
        engine.submit(items).result(60)
        after = engine.frequencies.drain()
        tokens = engine.stats().tokens
    assert {delta.number for delta in before} == {0}
    assert {delta.number for delta in after} == {1}
    assert sum(delta.lookups for delta in before) + sum(delta.lookups for delta in after) == tokens
    assert sum(delta.hits for delta in before) == 0 < sum(delta.hits for delta in after)


def test_backoff_computes_nothing_when_the_tree_holds_the_unigrams(source: FolderSource, tmp_path: Path) -> None:
    with tiny_engine(source) as engine:
        engine.load_base("k2")
        engine.publish_tree("k2", _build_tree(engine, "k2", source, tmp_path, 1, 0.3))
        exact = numbers(engine.submit(_items("k2", 40)).result(60))
        computed = engine.stats().computed_windows
        assert computed > 0
        backoff = numbers(engine.submit(_items("k2", 40, policy=MissPolicy.BACKOFF)).result(60))
        assert engine.stats().computed_windows == computed
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(exact, backoff, strict=True))


def test_two_bases_answer_apart_when_their_items_are_submitted_together(source: FolderSource) -> None:
    zero, two = _items("k0", 20), _items("k2", 20)
    with tiny_engine(source) as engine:
        mixed = numbers(engine.submit([item for pair in zip(zero, two, strict=True) for item in pair]).result(60))
        apart = numbers(engine.submit(zero).result(60)), numbers(engine.submit(two).result(60))
    for index in range(20):
        np.testing.assert_allclose(mixed[2 * index], apart[0][index], atol=1e-5)
        np.testing.assert_allclose(mixed[2 * index + 1], apart[1][index], atol=1e-5)


def test_only_the_bad_items_fail_when_good_ones_run_beside_them(source: FolderSource, tmp_path: Path) -> None:
    spec = read_spec(source.bases["k2"])
    source.adapters["other-shape"] = tmp_path / "other.safetensors"
    save_adapter(
        random_adapter(read_spec(source.bases["k0"]), AdapterKind.LORA, 4, 2, seed=1), source.adapters["other-shape"]
    )
    source.adapters["torn"] = tmp_path / "torn.safetensors"
    source.adapters["torn"].write_bytes(source.adapters["k2-0"].read_bytes()[:-40])

    def ref(adapter: str | None, base: str = "k2") -> ModelRef:
        return ModelRef(base, "general", adapter)

    good = Item(ref("k2-0"), Task.CLASSIFY, text="w1 w2 w3")
    bad = [
        (Item(ref("missing"), Task.CLASSIFY, text="w1"), NotFound, "no adapter missing"),
        (Item(ref("torn"), Task.CLASSIFY, text="w1"), AdapterRefused, "torn.safetensors"),
        (Item(ref("other-shape"), Task.CLASSIFY, text="w1"), AdapterRefused, "one of the 2 lower layers"),
        (Item(ref(None), Task.CLASSIFY, text="w1"), InvalidInput, "no classification head"),
        (Item(ref("k2-0", base="nowhere"), Task.CLASSIFY, text="w1"), NotFound, "no base nowhere"),
        (
            Item(ref("k2-0"), Task.CLASSIFY, text="w1 " * 60),
            ContextTooLong,
            f"62 tokens, the model takes {spec.max_positions}",
        ),
        (Item(ref("k2-0"), Task.CLASSIFY, tokens=(2, 100, 3)), InvalidInput, r"0\.\.99"),
        (Item(ref("k2-0"), Task.CLASSIFY, tokens=()), InvalidInput, "no tokens"),
    ]
    with tiny_engine(source) as engine:
        alone = numbers(engine.submit([good]).result(60))[0]
        outcomes = engine.submit([item for each, _, _ in bad for item in (good, each)]).result(60)
    for outcome in outcomes[::2]:
        assert outcome.tokens == 5
        np.testing.assert_allclose(numbers([outcome])[0], alone, atol=1e-5)
    for outcome, (_, kind, reason) in zip(outcomes[1::2], bad, strict=True):
        assert isinstance(outcome.error, kind)
        assert outcome.error.message
        with pytest.raises(kind, match=reason):
            raise outcome.error


def test_a_long_text_is_cut_when_the_item_asks_for_it(source: FolderSource) -> None:
    ref = ModelRef("k0", "general", None)
    words = [f"w{n % 40}" for n in range(60)]
    long = Item(ref, Task.EMBED, text=" ".join(words), truncate_to=10)
    same = Item(ref, Task.EMBED, text=" ".join(words[:8]))
    with tiny_engine(source) as engine:
        cut, whole = engine.submit([long, same]).result(60)
    assert isinstance(cut.result, Embedding)
    assert cut.tokens == whole.tokens == 10
    np.testing.assert_allclose(numbers([cut])[0], numbers([whole])[0], atol=1e-6)
    assert abs(float(np.linalg.norm(cut.result.vector)) - 1) < 1e-5


def test_labels_and_probabilities_fit_the_tenants_own_head_when_heads_differ(source: FolderSource) -> None:
    items = [Item(ModelRef("k0", "general", f"k0-{n}"), Task.CLASSIFY, text="w1 w2") for n in range(12)]
    with tiny_engine(source) as engine:
        outcomes = engine.submit(items).result(60)
    for number, outcome in enumerate(outcomes):
        assert isinstance(outcome.result, Classification)
        assert len(outcome.result.labels) == len(outcome.result.probs) == (2, 3, 7)[number % 3]
        assert abs(sum(outcome.result.probs) - 1) < 1e-9
        assert outcome.result.label in outcome.result.labels


def test_new_weights_answer_when_a_name_gets_another_digest(source: FolderSource) -> None:
    one, other = (Item(ModelRef("k0", "general", f"k0-{n}"), Task.CLASSIFY, text="w1 w2 w3") for n in (0, 6))
    with tiny_engine(source) as engine:
        first = numbers(engine.submit([one]).result(60))[0]
        second = numbers(engine.submit([other]).result(60))[0]
        assert np.abs(first - second).max() > 1e-3
        engine.drop_adapter("k0-0")
        assert engine.stats().host.entries == 1
        np.testing.assert_allclose(numbers(engine.submit([one]).result(60))[0], first, atol=1e-6)


def test_a_batch_is_run_in_parts_when_its_adapters_do_not_fit_the_device_together(source: FolderSource) -> None:
    items = _items("k0", 40)
    with tiny_engine(source) as roomy, tiny_engine(source, device_adapter_bytes=120 * 1024) as tight:
        expected, found = numbers(roomy.submit(items).result(60)), numbers(tight.submit(items).result(60))
        assert tight.stats().on_device.evictions > 0
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_an_adapter_is_checked_for_each_base_that_runs_it_when_one_has_run_it_already(source: FolderSource) -> None:
    fitting, misfit = (Item(ModelRef(base, "general", "k0-0"), Task.EMBED, text="w1 w2") for base in ("k0", "k2"))
    with tiny_engine(source) as engine:
        first = numbers(engine.submit([fitting]).result(60))[0]
        mixed = engine.submit([misfit, fitting]).result(60)
    assert isinstance(mixed[0].error, AdapterRefused)
    np.testing.assert_allclose(numbers(mixed[1:])[0], first, atol=1e-5)


# At k = 2 rows are rounded to int8: a last bit can become a step of a hundredth.
@pytest.mark.parametrize(("base", "tolerance"), [("k0", 1e-5), ("k2", 0.02)])
def test_answers_are_the_same_when_weights_cannot_be_packed(
    source: FolderSource, base: str, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = _items(base, 40)
    with tiny_engine(source) as engine:
        expected = numbers(engine.submit(items).result(60))
    monkeypatch.setattr("hmi.models.layers.dense._can_pack", lambda dtype: False)
    with tiny_engine(source) as engine:
        found = numbers(engine.submit(items).result(60))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance)


def test_rows_of_one_layout_are_computed_together_when_tenants_are_mixed(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny_engine(source, batch_rows=32) as engine:
        ran = keep_batches(engine, monkeypatch)
        engine.submit(_items("k0", 60)).result(60)
    assert max(len(batch.staged.tasks) for batch in ran) > 8
    for batch in ran:
        tenants = [resident.key for resident in batch.staged.layout.residents if resident and resident.body.rows]
        assert len(list(itertools.groupby(tenants))) == len(set(tenants))
        assert isinstance(batch.staged.layout.adapters, GatheredPlan)
        for groups in batch.staged.layout.adapters.groups.values():
            assert len({id(group.layout) for group in groups}) == len(groups)


def test_every_future_is_resolved_when_the_engine_is_closed(source: FolderSource) -> None:
    engine = tiny_engine(source)
    futures = [engine.submit(_items("k2", 50, seed=seed)) for seed in range(6)]
    engine.close(drain=False)
    for future in futures:
        outcomes = future.result(5)
        assert len(outcomes) == 50
        assert all(outcome.error is None or isinstance(outcome.error, Cancelled) for outcome in outcomes)
    with pytest.raises(Cancelled):
        engine.submit(_items("k2", 1))


def test_a_failing_stage_fails_its_own_batch_when_others_wait(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny_engine(source) as engine:
        healthy = engine._runner.run
        calls = 0

        def run(batch: object) -> object:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise SystemExit("a library lost its temper")
            return healthy(batch)  # type: ignore[arg-type]

        monkeypatch.setattr(engine._runner, "run", run)
        outcomes = engine.submit(_items("k0", 60)).result(60)
        failed = [outcome for outcome in outcomes if outcome.error]
        assert 0 < len(failed) <= 8
        assert all("SystemExit" in outcome.error.message for outcome in failed if outcome.error)
        assert not any("temper" in outcome.error.message for outcome in failed if outcome.error)
        assert all(outcome.error is None for outcome in engine.submit(_items("k0", 20)).result(60))


@pytest.mark.parametrize("base", ["k0", "k2"])
def test_one_sequence_fails_alone_when_the_device_chokes_on_it(
    source: FolderSource, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = _items(base, 40)
    with tiny_engine(source) as engine:
        expected = numbers(engine.submit(items).result(60))
        healthy = engine._runner._run

        def choke(batch: StagedBatch) -> ComputedBatch:
            if any(task.index == 17 for task in batch.tasks):
                raise RuntimeError("a kernel gave up")
            return healthy(batch)

        monkeypatch.setattr(engine._runner, "_run", choke)
        outcomes = engine.submit(items).result(60)
    error = outcomes.pop(17).error
    assert error is not None
    assert "failed on this input" in error.message
    for one, other in zip(numbers(outcomes), expected[:17] + expected[18:], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_an_empty_submission_is_answered_at_once(source: FolderSource) -> None:
    with tiny_engine(source) as engine:
        assert engine.submit([]).result(0) == []
