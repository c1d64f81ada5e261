"""A delta brings a domain's states nearer to the full model, is repeatable, and its adapters learn from its rows."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from hmi.adapters import Adapter
from hmi.adapters.formats import load_delta, save_adapter
from hmi.adapters.maths import NoAdapters, SingleAdapter
from hmi.errors import AdapterRefused, InvalidInput
from hmi.knowledge import unpack, window_keys
from hmi.knowledge.store import round_trip
from hmi.models.convert import convert_pretrained
from hmi.models.families import load_hbert, load_tokenizer
from hmi.spec import Site, read_spec
from hmi.training.adapter import train_adapter
from hmi.training.data import Example
from hmi.training.delta import DeltaConfig, TrainedDelta, _DeltaTraining, _TreeViews, train_delta
from hmi.training.distill import DistillConfig, EstimatorConfig, Teacher, add_estimator, build_base, measure_fidelity
from hmi.training.lower import LowerStates, WindowBatch, encode, estimator_of, leave_one_out, window_rows
from hmi.training.lower.states import estimated_rows
from hmi.training.plan import TrainConfig
from hmi.training.reports import TrainProgress
from tests.adapter_samples import bottleneck_adapter, lora_adapter
from tests.tiny import TINY_WORDS, tiny_bert_folder

QUICK = DeltaConfig(rank=4, steps=40, batch_size=16, learning_rate=1e-2, dtype="float32")


def sentences(count: int, words: range, seed: int) -> list[str]:
    """Drawn from a few of the words, so that a domain has windows of its own that come again."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 10, (count,), generator=generator).tolist()
    drawn = (torch.randint(words.start, words.stop, (length,), generator=generator) for length in lengths)
    return [" ".join(TINY_WORDS[i] for i in each) for each in drawn]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    build_base(tiny_bert_folder(folder / "source"), folder / "k2", 2, corpora=[sentences(200, range(95), 1)])
    return folder / "k2"


@pytest.fixture(scope="module")
def estimating(base: Path) -> Path:
    """The base with an estimator."""
    out = base.with_name("k2-estimating")
    config = EstimatorConfig(size=24, steps=200, batch_size=64, learning_rate=1e-2)
    add_estimator(base, out, [sentences(200, range(95), 1)], config)
    return out


@pytest.fixture(scope="module")
def domain() -> list[str]:
    return sentences(160, range(20, 32), 2)


@pytest.fixture(scope="module")
def trained(base: Path, domain: list[str]) -> TrainedDelta:
    return train_delta(base, domain, QUICK)


def same_weights(one: Adapter, other: Adapter) -> bool:
    ours, theirs = one.tensors(), other.tensors()
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_states_come_nearer_to_the_full_model_when_a_delta_is_trained(trained: TrainedDelta) -> None:
    report = trained.report
    assert report.texts + report.dev_texts == 160
    assert report.after.upper < 0.95 * report.before.upper
    assert report.after.lower < report.before.lower
    assert len(report.losses) == 10
    assert report.losses[-1] < report.losses[0]


def test_a_domains_rows_are_estimated_by_its_own_network(estimating: Path, domain: list[str], tmp_path: Path) -> None:
    trained = train_delta(estimating, domain, dataclasses.replace(QUICK, estimator_steps=200))
    save_adapter(trained.delta, tmp_path / "adapter.safetensors")
    model = load_hbert(estimating)
    delta = load_delta(tmp_path / "adapter.safetensors", model.spec)
    sequences = encode(load_tokenizer(estimating), domain[::10], 48)
    keys = np.unique(window_keys(np.concatenate(sequences), np.array([len(ids) for ids in sequences])))
    rows = window_rows(model, keys, SingleAdapter.of(delta))
    off = {}
    for name, owner in (("base's", None), ("own", delta)):
        estimator = estimator_of(model, owner)
        assert estimator is not None
        estimates = estimated_rows(model, estimator, keys, SingleAdapter.of(delta))
        off[name] = float(((estimates - rows).norm(dim=1) / rows.norm(dim=1)).mean())
    assert trained.report.estimate_error is not None
    assert off["own"] < 0.8 * off["base's"]
    once = dataclasses.replace(QUICK, steps=1, estimator_steps=1)
    adapter = bottleneck_adapter(np.random.default_rng(7), spec=model.spec.ordinary)
    source = estimating.with_name("source")
    refined = train_delta(estimating, domain, once, above=delta, teacher=source, teacher_adapter=adapter)
    assert refined.delta.estimator is not None


def test_report_is_of_the_saved_delta_when_it_is_read_back(
    base: Path, domain: list[str], trained: TrainedDelta, tmp_path: Path
) -> None:
    path = tmp_path / "adapter.safetensors"
    save_adapter(trained.delta, path)
    spec = read_spec(base)
    delta = load_delta(path, spec)
    assert {layer for layer, _ in delta.lora} == set(range(spec.k))
    assert {site for _, site in delta.lora} == set(QUICK.sites)
    assert delta.rank == QUICK.rank
    model = load_hbert(base)
    distinct = list(dict.fromkeys(domain))
    judges = encode(load_tokenizer(base), distinct[::10], 48)
    assert measure_fidelity(model, judges) == trained.report.before
    assert measure_fidelity(model, judges, SingleAdapter.of(delta)) == trained.report.after


def test_base_is_untouched_when_a_delta_is_trained(base: Path, domain: list[str]) -> None:
    before = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    train_delta(base, domain, dataclasses.replace(QUICK, steps=2, sites=read_spec(base).sites))
    assert hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest() == before


def test_weights_are_the_same_with_the_same_seed(base: Path, domain: list[str]) -> None:
    config = dataclasses.replace(QUICK, steps=12)
    first, second = (train_delta(base, domain, config).delta for _ in range(2))
    other = train_delta(base, domain, dataclasses.replace(config, seed=1)).delta
    assert same_weights(first, second)
    assert not same_weights(first, other)


def test_delta_refines_the_one_above_when_that_is_given(base: Path, domain: list[str], trained: TrainedDelta) -> None:
    config = dataclasses.replace(QUICK, rank=2, nearness=0)
    unmoved = train_delta(base, domain, dataclasses.replace(config, steps=2, learning_rate=1e-30), above=trained.delta)
    assert unmoved.report.before == trained.report.after
    assert unmoved.report.after.upper == pytest.approx(unmoved.report.before.upper, rel=1e-4)
    refined = train_delta(base, domain, config, above=trained.delta)
    assert refined.report.before == trained.report.after
    assert refined.report.after.upper < refined.report.before.upper
    assert refined.delta.rank == QUICK.rank + 2


def test_delta_keeps_the_sites_of_the_one_above_when_it_has_others_itself(
    base: Path, domain: list[str], trained: TrainedDelta
) -> None:
    config = dataclasses.replace(QUICK, steps=1, rank=2, sites=(Site.K, Site.Q))
    delta = train_delta(base, domain, config, above=trained.delta).delta
    ranks = {site: part.rank for (_, site), part in delta.lora.items()}
    assert ranks == dict.fromkeys(QUICK.sites, QUICK.rank) | {Site.K: 2, Site.Q: QUICK.rank + 2}


def test_rows_stay_nearer_to_the_parents_when_nearness_weighs_more(base: Path, domain: list[str]) -> None:
    model = load_hbert(base)
    sequences = encode(load_tokenizer(base), domain, 48)
    lengths = np.array([len(ids) for ids in sequences])
    windows = torch.from_numpy(unpack(np.unique(window_keys(np.concatenate(sequences), lengths))))

    def distance(nearness: float) -> float:
        delta = train_delta(base, domain, dataclasses.replace(QUICK, nearness=nearness)).delta
        with torch.no_grad():
            return float((model.lower(windows, SingleAdapter.of(delta)) - model.lower(windows)).norm())

    far, near = distance(0.0), distance(4.0)
    assert near < 0.8 * far


def test_rows_are_the_base_models_when_the_delta_has_learnt_nothing(base: Path, domain: list[str]) -> None:
    """The output half of a pair begins at zero: with next to no learning rate the delta stays the base model."""
    report = train_delta(base, domain, dataclasses.replace(QUICK, steps=3, learning_rate=1e-30)).report
    assert report.after == report.before


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_weights_are_float32_when_the_base_runs_in(base: Path, domain: list[str], name: str) -> None:
    delta = train_delta(base, domain, dataclasses.replace(QUICK, steps=2, dtype=name)).delta
    assert {tensor.dtype for tensor in delta.tensors().values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("own", [False, True])
def test_loss_is_that_of_plain_sequences_when_windows_repeat(base: Path, trained: TrainedDelta, own: bool) -> None:
    """Against a loop over sequences and tokens that knows of no distinct windows, padding or batches.

    The domain's own model has an adapter on every layer, and above k both sides have it.
    """
    model, delta = load_hbert(base), SingleAdapter.of(trained.delta)
    spec = model.spec.ordinary
    adapter = bottleneck_adapter(np.random.default_rng(4), spec=spec) if own else None
    theirs = SingleAdapter.of(adapter) if adapter else NoAdapters()
    sequences = encode(load_tokenizer(base), ["w1 w2 w3", "w2", "w1 w2 w3 w4 w5 w1 w2 w3", "w1 w2 w3"], 48)
    errors, sizes = torch.zeros(3), torch.zeros(3)
    with torch.no_grad():
        for ids in sequences:
            real = torch.ones(1, len(ids), dtype=torch.bool)
            windows = torch.from_numpy(unpack(window_keys(ids, np.array([len(ids)]))))
            rows = torch.cat([model.lower(window[None], delta) for window in windows])
            ours, full = model.merge(rows[None]), model.embed(torch.from_numpy(ids)[None])
            for lower in model.transformer_layers[:2]:
                full = lower(full, real, theirs)
            for place, layer in enumerate([None, *model.transformer_layers[2:]]):
                if layer is not None:
                    ours, full = (layer(state, real, theirs) for state in (ours, full))
                errors[place] += (ours - full).square().sum()
                sizes[place] += full.square().sum()
        config = dataclasses.replace(QUICK, nearness=0.0)
        training = _DeltaTraining(model, Teacher(model, adapter), NoAdapters(), sequences, config)
        loss = training.loss(delta, WindowBatch.of(sequences))
        torch.testing.assert_close(loss, (errors / sizes).mean())


def test_lower_layers_of_the_domains_own_model_are_distilled(base: Path, domain: list[str], tmp_path: Path) -> None:
    """Rows come nearer to states of the full model with its adapter, which moves them far from the base's."""
    source = tiny_bert_folder(tmp_path / "source")
    spec = read_spec(base).ordinary
    adapter = lora_adapter(np.random.default_rng(3), 8, spec=spec, sites=(Site.Q, Site.V, Site.FC2))
    config = dataclasses.replace(QUICK, nearness=0.0, left_out=0.0)
    report = train_delta(base, domain, config, teacher=source, teacher_adapter=adapter).report
    plain = train_delta(base, domain, config, teacher=source).report
    assert report.before.lower > plain.before.lower
    assert report.after.lower < 0.9 * report.before.lower


def test_left_out_texts_get_the_ngrams_of_a_tree_of_the_others() -> None:
    texts = [np.array(ids) for ids in ([2, 7, 8, 3], [2, 7, 8, 9, 3], [2, 5, 3])]
    lengths = np.array([4, 5, 3])
    whole = window_keys(np.concatenate(texts), lengths)
    others = leave_one_out(whole, lengths)
    seen = _TreeViews(texts).windows([2, 0, 1], np.array([True, False, True]))
    assert seen.tolist() == [*others[9:], *whole[:4], *others[4:9]]
    assert not np.array_equal(others, whole)


def test_teacher_is_required_when_the_base_was_distilled(domain: list[str], tmp_path: Path) -> None:
    source = tiny_bert_folder(tmp_path / "source")
    build_base(source, tmp_path / "k2", 2, corpora=[domain], config=DistillConfig(steps=2, batch_size=4))
    with pytest.raises(InvalidInput, match="as the teacher"):
        train_delta(tmp_path / "k2", domain, QUICK)
    report = train_delta(tmp_path / "k2", domain, dataclasses.replace(QUICK, steps=2), teacher=source).report
    assert report.before.lower > 0


def test_teacher_is_refused_when_it_has_another_shape(base: Path, domain: list[str], tmp_path: Path) -> None:
    other = tiny_bert_folder(tmp_path / "other", hidden_size=16)
    with pytest.raises(InvalidInput, match="hidden_size is 16, and the base's is 32"):
        train_delta(base, domain, QUICK, teacher=other)


def test_progress_counts_every_step_when_a_delta_is_trained(base: Path, domain: list[str]) -> None:
    reported: list[TrainProgress] = []
    train_delta(base, domain, dataclasses.replace(QUICK, steps=5), on_progress=reported.append)
    assert [(each.done, each.steps) for each in reported] == [(number, 5) for number in range(1, 6)]
    assert all(each.seconds_left > 0 for each in reported[:-1])
    assert reported[-1].seconds_left == 0


def test_training_ends_when_progress_raises(base: Path, domain: list[str]) -> None:
    steps = itertools.count(1)

    def stop(progress: TrainProgress) -> None:
        if next(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_delta(base, domain, QUICK, on_progress=stop)
    assert next(steps) == 4


def test_adapter_is_trained_on_its_domains_rows_when_a_delta_is_given(base: Path, trained: TrainedDelta) -> None:
    examples = [Example(f"w{number % 2} w{20 + number % 12}", "ab"[number % 2]) for number in range(32)]
    config = TrainConfig(rank=4, epochs=1, batch_size=8, dtype="float32")
    plain = train_adapter(base, examples, config).adapter
    ours = train_adapter(base, examples, config, delta=trained.delta).adapter
    assert not same_weights(plain, ours)
    ours.validate(read_spec(base))


def test_states_are_the_rounded_rows_of_the_delta_when_one_is_given(base: Path, trained: TrainedDelta) -> None:
    model, delta = load_hbert(base), SingleAdapter.of(trained.delta)
    (ids,) = encode(load_tokenizer(base), ["w20 w21 w22"], 48)
    hidden, _ = LowerStates(model, [ids], delta).batch([0])
    windows = torch.from_numpy(unpack(window_keys(ids, np.array([len(ids)]))))
    rows = torch.from_numpy(round_trip(model.lower(windows, delta).numpy(), model.spec.row_dtype))
    torch.testing.assert_close(hidden[0], model.merge(rows[None])[0], atol=1e-5, rtol=0)
    assert not torch.allclose(model.lower(windows, delta), model.lower(windows), atol=1e-3)


def test_an_adapter_of_upper_layers_is_refused_as_a_delta(base: Path) -> None:
    examples = [Example("w1", "a"), Example("w2", "b")]
    config = TrainConfig(rank=2, epochs=1, dtype="float32")
    upper = train_adapter(base, examples, config).adapter
    with pytest.raises(AdapterRefused, match="domain delta"):
        train_adapter(base, examples, config, delta=upper)


def test_delta_is_refused_when_nothing_is_looked_up(tmp_path: Path, domain: list[str]) -> None:
    convert_pretrained(tiny_bert_folder(tmp_path / "source"), tmp_path / "k0", k=0)
    with pytest.raises(InvalidInput, match="k = 0"):
        train_delta(tmp_path / "k0", domain, QUICK)


@pytest.mark.parametrize("texts", [[], ["w1"], ["w1", "  ", "w1"]])
def test_delta_is_refused_when_there_is_too_little_text(base: Path, texts: list[str]) -> None:
    with pytest.raises(InvalidInput, match="two different texts"):
        train_delta(base, texts, QUICK)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_config_is_refused_when_nearness_is_no_weight(weight: float) -> None:
    with pytest.raises(InvalidInput, match="nearness"):
        DeltaConfig(nearness=weight)


@pytest.mark.parametrize("field", ["rank", "steps", "batch_size", "max_tokens"])
def test_config_is_refused_when_a_count_is_zero(field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        DeltaConfig(**{field: 0})  # type: ignore[arg-type]


def test_config_is_refused_when_no_site_is_named() -> None:
    with pytest.raises(InvalidInput, match="linear layer"):
        DeltaConfig(sites=())
