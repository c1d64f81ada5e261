"""The recipes of the benchmark on a tiny model: each is what it says, and the product's line is the product."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmarks.flops import forward_flops
from benchmarks.recipes import low_rank
from benchmarks.recipes.__main__ import as_text, make_report
from benchmarks.recipes.keeping import Keep, keep
from benchmarks.recipes.learning import Learner, Result, costs, read_text
from benchmarks.recipes.low_rank import LowRank
from benchmarks.recipes.plan import VARIANTS, Plan, Training
from benchmarks.recipes.students import LastLayer, LostNeighbours, Tried, WithAttention, hbert
from benchmarks.recipes.vectors import ThreeVectors
from hmi.bench import Shape
from hmi.models.convert import convert_pretrained, pretrained_tensors, read_weight_diff
from hmi.models.families import BertLayer, HBert, load_hbert
from hmi.spec import read_spec
from hmi.training.distill import DistillConfig, Student, Teacher, build_base, distill
from hmi.training.lower import WindowBatch, relative_error
from tests.tiny import TINY_WORDS, tiny_bert_folder

PLAN = Plan(steps=2, batch_size=4, every=1, calibration_texts=4000)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    return tiny_bert_folder(folder, num_hidden_layers=6, hidden_size=64, intermediate_size=128)


@pytest.fixture(scope="module")
def corpora() -> list[list[str]]:
    rng = np.random.default_rng(4)
    return [[" ".join(rng.choice(TINY_WORDS, rng.integers(3, 12))) for _ in range(count)] for count in (60, 90)]


@pytest.fixture(scope="module")
def learner(source: Path, corpora: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> Learner:
    folder = tmp_path_factory.mktemp("conversions")
    text = read_text(corpora, source, folder / "read", PLAN)
    return Learner(source, folder, text, PLAN, CPU, torch.float32)


@pytest.fixture(scope="module")
def results(learner: Learner) -> dict[str, Result]:
    said: list[str] = []
    found = learner.measure(VARIANTS, said.append)
    assert len(said) == len(VARIANTS)
    return found


@pytest.fixture(scope="module")
def base(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "k3"
    convert_pretrained(source, folder, k=3)
    return folder


@pytest.fixture
def model(base: Path) -> HBert:
    return load_hbert(base)


@pytest.fixture
def teacher(base: Path) -> Teacher:
    return Teacher(load_hbert(base))


def batch_of(texts: Sequence[NDArray[np.int64]]) -> WindowBatch:
    return WindowBatch.of(texts, thinned=1.0, rng=np.random.default_rng(0))


def test_every_recipe_has_its_line_when_all_are_run(results: dict[str, Result], learner: Learner) -> None:
    backwards = dict(reversed(results.items()))
    report = json.loads(json.dumps(make_report(backwards, learner.text, PLAN, {})))
    assert list(report["recipes"]) == list(VARIANTS)
    for name, each in report["recipes"].items():
        assert len(each["whole"]["layers"]) == 6 - VARIANTS[name].training.k + 1
        assert each["thinned"]["layers"][0] > each["whole"]["layers"][0] > 0
        assert bool(each["losses"]) == (name != "closed-form")
    table = as_text(report).splitlines()
    for name in VARIANTS:
        assert sum(line.startswith(f"{name} ") for line in table) == 1
        assert sum(line.startswith(f"{name}: ") for line in table) == 1


def test_recipes_differ_where_they_say_when_all_are_run(results: dict[str, Result]) -> None:
    product = results["product"]
    assert results["three-vectors"].costs.row_bytes == 3 * product.costs.row_bytes
    assert results["svd"].losses == results["unrounded"].losses == product.losses
    assert results["unrounded"].difference_bytes > 4 * product.difference_bytes
    for name in ("three-vectors", "attention", "last-layer", "thinned-0", "neighbours-0.1", "thinned-1", "low-rank"):
        assert results[name].losses != product.losses, name


def test_line_of_the_product_is_what_build_base_makes(
    results: dict[str, Result], source: Path, corpora: list[list[str]], tmp_path: Path
) -> None:
    config = DistillConfig(steps=PLAN.steps, batch_size=PLAN.batch_size, dtype="float32")
    report = build_base(source, tmp_path / "k3", 3, corpora=corpora, config=config, difference=tmp_path / "difference")
    product = results["product"]
    assert report.after is not None
    assert product.losses == pytest.approx(report.losses, rel=1e-4)
    assert product.whole.layers == pytest.approx(report.after.layers, rel=1e-3)
    assert product.whole.pooled == pytest.approx(report.after.pooled, rel=1e-3)
    assert product.difference_bytes == read_weight_diff(tmp_path / "difference").nbytes


@pytest.mark.parametrize("student", [Tried, LastLayer, WithAttention, LostNeighbours, ThreeVectors, LowRank])
def test_states_come_nearer_when_a_recipe_is_followed(
    student: type[Tried], model: HBert, teacher: Teacher, learner: Learner
) -> None:
    tried, batch = student(model), batch_of(learner.text.judges)

    @torch.no_grad()
    def error() -> float:
        return float(relative_error(tried.states(batch)[-1], teacher.states(batch)[-1]))

    before = error()
    distill(tried, teacher, learner.text.seen, DistillConfig(steps=30, batch_size=8, learning_rate=3e-3))
    assert error() < 0.9 * before


def test_tried_recipe_is_the_products_when_nothing_is_changed(model: HBert, teacher: Teacher, learner: Learner) -> None:
    batch = batch_of(learner.text.judges)
    assert torch.equal(Tried(model)(batch, teacher), Student(model)(batch, teacher))


def test_attention_is_compared_by_its_divergence(model: HBert, teacher: Teacher, learner: Learner) -> None:
    """Against torch's own sum, token by token."""
    batch = batch_of(learner.text.judges)
    tried = WithAttention(model)

    def attention(layer: BertLayer, x: Tensor, text: int, head: int) -> Tensor:  # [T, T] of real tokens
        part = slice(16 * head, 16 * head + 16)
        x = x[text, batch.mask[text]]
        scores: Tensor = layer.q(x)[:, part] @ layer.k(x)[:, part].T / 4
        return scores.softmax(-1)

    with torch.no_grad():
        ours, wanted = tried.states(batch), teacher.states(batch)
        found = []
        for number in range(3):
            layers = model.transformer_layers[3 + number], hbert(teacher.model).transformer_layers[3 + number]
            of_tokens = []
            for text in range(len(batch.ids)):
                for head in range(4):
                    a = attention(layers[0], ours[number], text, head)
                    b = attention(layers[1], wanted[number], text, head)
                    of_tokens.append(F.kl_div(a.log(), b, reduction="none").sum(-1))
            found.append(torch.cat(of_tokens).mean())
        extra = tried(batch, teacher) - Tried(model)(batch, teacher)
    assert float(extra) == pytest.approx(float(torch.stack(found).mean()), rel=1e-3)


def test_tenth_of_the_neighbours_is_lost_and_nothing_else(model: HBert, learner: Learner) -> None:
    batch = WindowBatch.of(learner.text.seen[1])
    before = batch.windows[batch.index][batch.mask]
    thinned = LostNeighbours(model).thinned(batch)
    after = thinned.windows[thinned.index][thinned.mask]
    assert torch.equal(after[:, 1], before[:, 1])
    there = before[:, [0, 2]] >= 0
    kept = (after == before)[:, [0, 2]]
    assert bool(kept[~there].all())
    assert 0.07 < float((~kept[there]).float().mean()) < 0.13
    assert bool((after[:, [0, 2]][~kept] == -1).all())


def test_state_is_the_mean_of_three_windows_that_hold_the_token(model: HBert, learner: Learner) -> None:
    """By hand, token by token; windows that lost the token are left out."""
    tried, batch = ThreeVectors(model), batch_of(learner.text.judges)
    logits = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    model.load_state_dict({"mixing": logits / 20}, strict=False)
    with torch.no_grad():
        rows, given = tried.rows(batch.windows), tried.given(batch)
    lost = 0
    for text, length in enumerate(batch.mask.sum(1).tolist()):
        for token in range(length):
            total, weights = torch.zeros(64), torch.zeros(64)
            for place, (window, seat) in enumerate(((token - 1, 2), (token, 1), (token + 1, 0))):
                if not 0 <= window < length or batch.windows[batch.index[text, window], seat] < 0:
                    lost += 0 <= window < length
                    continue
                total += logits[place].exp() * rows[batch.index[text, window], seat]
                weights += logits[place].exp()
            expected = total / weights + model.correction.position[token]
            torch.testing.assert_close(given[text, token], expected)
    assert lost > 10


def test_states_stay_when_a_pair_of_low_rank_is_folded(
    model: HBert, teacher: Teacher, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(low_rank, "RANK", 4)
    original = {name: each.clone() for name, each in model.state_dict().items()}
    names, batch = set(original), batch_of(learner.text.judges)
    tried = LowRank(model)
    distill(tried, teacher, learner.text.seen, DistillConfig(steps=3, batch_size=4))
    with torch.no_grad():
        before = tried.states(batch)
        tried.fold()
        torch.testing.assert_close(tried.states(batch), before)
    changed = model.state_dict()
    assert set(changed) == names
    matrices = [name for name, each in original.items() if name.startswith("layers.") and each.dim() == 2]
    assert len(matrices) == 36
    for name in matrices:
        sizes = torch.linalg.svdvals(changed[name] - original[name])
        assert float(sizes[3]) > 1e-5
        assert float(sizes[4]) < 1e-3 * float(sizes[0])


def test_best_matrices_of_the_rank_come_back_when_pairs_are_kept(
    source: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.recipes.keeping.RANK", 8)
    original, spec = pretrained_tensors(source), read_spec(base)
    changed = dict(load_hbert(base).state_dict())
    name = "layers.2.fc1.weight"
    changed[name] = original[name] + torch.randn(original[name].shape, generator=torch.Generator().manual_seed(0))
    tensors, nbytes = keep(original, changed, Keep.PAIRS, spec)
    left = torch.linalg.svdvals(changed[name] - original[name])[8:].norm()
    assert float((tensors[name] - changed[name]).norm()) == pytest.approx(float(left), rel=1e-3)
    assert tensors.keys() == changed.keys()
    pairs = 6 * (4 * (64 + 64) + 2 * (64 + 128)) * 8 * 2
    rest = 2 * (3 * 64 + 64 * 64 + 64)  # window and projection; positions have no correction
    assert nbytes == pairs + rest


def test_whole_difference_comes_back_when_it_is_kept_unrounded(source: Path, base: Path) -> None:
    original, spec = pretrained_tensors(source), read_spec(base)
    changed = dict(load_hbert(base).state_dict())
    changed["layers.0.q.weight"] = original["layers.0.q.weight"] + 1 / 3
    tensors, nbytes = keep(original, changed, Keep.UNROUNDED, spec)
    assert all(torch.equal(tensors[name], each) for name, each in changed.items())
    assert nbytes == 4 * (64 * 64 + 3 * 64 + 64 * 64 + 64 + 48 * 64)


def test_costs_are_as_counted_by_hand(base: Path) -> None:
    spec = dataclasses.replace(read_spec(base), k=2, hidden_size=4, heads=2, intermediate_size=8)
    tokens = 10
    token = 4 * 16 + 2 * 32 + 2 * tokens * 4  # q, k, v, o; feed-forward; scores and their sum
    first = 3 * (4 * 16 + 2 * 32 + 2 * 3 * 4)
    middle_only = (2 * 16 + 2 * 32 + 2 * 3 * 4) + 3 * 2 * 16
    found = costs(spec, 1, tokens)
    assert found.row_bytes == 4 + 4
    assert found.window == pytest.approx((first + middle_only + 16) / (6 * token))
    assert found.token == pytest.approx(4 / 6)
    three = costs(spec, 3, tokens)
    assert three.row_bytes == 3 * 8
    assert three.window == pytest.approx((2 * first + 3 * 16) / (6 * token))
    assert three.token == pytest.approx((4 * token + 3 * 4) / (6 * token))
    shape = Shape(4, 6, 2, 8)
    pooler = 2 * 16
    assert 2 * tokens * 6 * token == forward_flops(shape, tokens) - pooler


def test_text_is_divided_as_the_product_divides_it(learner: Learner, corpora: list[list[str]]) -> None:
    assert [len(corpus) for corpus in learner.text.seen] == [57, 85]
    assert len(learner.text.judges) == sum(map(len, corpora)) - 57 - 85


def test_training_is_shared_when_only_the_keeping_differs() -> None:
    assert VARIANTS["product"].training == VARIANTS["svd"].training == VARIANTS["unrounded"].training == Training()
