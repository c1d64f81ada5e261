"""Base artifacts appear whole, and calibration brings windows nearer to the full model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from hmi.errors import Conflict, InvalidInput, StorageFull
from hmi.knowledge import window_keys
from hmi.models.convert import read_weight_diff
from hmi.models.families import load_hbert, load_tokenizer
from hmi.spec import RowDtype, read_spec
from hmi.training.distill import (
    DistillConfig,
    EstimatorConfig,
    Moments,
    Teacher,
    apply_weight_diff,
    base,
    build_base,
    fit_calibration,
    measure_fidelity,
    student,
)
from hmi.training.distill.base import work_folder
from hmi.training.lower import LowerStates, encode, window_rows
from hmi.training.lower.states import estimated_rows
from hmi.training.reports import TrainProgress
from tests.tiny import TINY_WORDS, tiny_bert_folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert_folder(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    generator = torch.Generator().manual_seed(11)
    lengths = torch.randint(3, 12, (200,), generator=generator).tolist()
    return [" ".join(TINY_WORDS[i] for i in torch.randint(0, 95, (length,), generator=generator)) for length in lengths]


def test_states_come_nearer_to_the_full_model_when_calibrated(source: Path, tmp_path: Path, texts: list[str]) -> None:
    report = build_base(source, tmp_path / "k2", 2, RowDtype.INT8, [texts])
    assert (report.texts, report.dev_texts) == (190, 10)
    assert report.before is not None
    assert report.after is not None
    assert report.after.lower < report.before.lower
    assert report.after.upper < report.before.upper


def test_first_position_is_the_mean_difference_when_calibrated(source: Path, tmp_path: Path, texts: list[str]) -> None:
    build_base(source, tmp_path / "k1", 1, RowDtype.FLOAT16, [texts])
    model = load_hbert(tmp_path / "k1")
    seen = [text for number, text in enumerate(texts) if number % 20]
    sequences = encode(load_tokenizer(tmp_path / "k1"), seen, 48)
    hidden, mask = LowerStates(model, sequences).batch(range(len(seen)))
    ids = torch.zeros(mask.shape, dtype=torch.int64)
    for row, each in enumerate(sequences):
        ids[row, : len(each)] = torch.from_numpy(each)
    with torch.no_grad():
        left = (model.full_lower(ids, mask) - hidden)[:, 0].mean(0)
    # Rounding of bfloat16, in which states are computed on processors that compute it, is the only difference.
    assert float(left.abs().max()) < 0.02


def test_unseen_positions_get_no_correction_when_texts_are_short(
    source: Path, tmp_path: Path, texts: list[str]
) -> None:
    build_base(source, tmp_path / "k2", 2, RowDtype.INT8, [texts])
    position = load_hbert(tmp_path / "k2").correction.position
    assert float(position[40:].abs().max()) == 0
    assert float(position[:5].abs().min(dim=1).values.max()) > 0


def test_projection_is_the_least_squares_map_when_every_position_is_alike() -> None:
    """Against numpy's own solver on the same states, with the correction's share taken out."""
    rng = np.random.default_rng(3)
    states, targets = rng.normal(size=(500, 8)), rng.normal(size=(500, 8))
    x = np.concatenate([states, np.ones((500, 1))], axis=1)
    sums = Moments(*(torch.from_numpy(each) for each in (x.T @ x, x.T @ targets, x.sum(0)[None], targets.sum(0)[None])))
    found = fit_calibration(sums)
    expected, *_ = np.linalg.lstsq(x, targets, rcond=None)
    np.testing.assert_allclose(found.weight.numpy().T, expected[:-1], atol=1e-3)
    assert found.correction is not None
    np.testing.assert_allclose((found.bias + found.correction[0]).numpy(), expected[-1], atol=1e-3)


def test_artifact_is_the_plain_conversion_when_no_text_is_given(source: Path, tmp_path: Path) -> None:
    report = build_base(source, tmp_path / "k2", 2)
    assert (report.texts, report.before, report.after) == (0, None, None)
    model = load_hbert(tmp_path / "k2")
    assert float(model.correction.position.abs().max()) == 0
    assert torch.equal(model.window.projection.weight, torch.eye(32))


def test_text_is_refused_when_nothing_is_looked_up(source: Path, tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(InvalidInput, match="k = 0 is the pretrained model"):
        build_base(source, tmp_path / "k0", 0, RowDtype.INT8, [texts])
    assert not (tmp_path / "k0").exists()
    assert build_base(source, tmp_path / "k0", 0).after is None


def test_nothing_is_left_behind_when_the_source_is_not_understood(tmp_path: Path) -> None:
    empty = tmp_path / "source"
    empty.mkdir()
    with pytest.raises(InvalidInput, match=r"config\.json"):
        build_base(empty, tmp_path / "out", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_existing_folder_is_kept_when_it_is_named_as_output(source: Path, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="is there already"):
        build_base(source, tmp_path, 2)


def test_calibration_is_refused_when_there_is_too_little_text(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="at least two different texts"):
        build_base(source, tmp_path / "k2", 2, RowDtype.INT8, [["w1 w2", "  "]])
    assert not (tmp_path / "k2").exists()


QUICK = DistillConfig(steps=60, batch_size=16, learning_rate=3e-3, dtype="float32")


def test_states_come_nearer_still_when_distilled(source: Path, tmp_path: Path, texts: list[str]) -> None:
    report = build_base(source, tmp_path / "k2", 2, RowDtype.INT8, [texts], QUICK)
    assert report.fitted is not None
    assert report.after is not None
    assert report.after.upper < 0.9 * report.fitted.upper
    assert len(report.after.layers) == 3  # after the lookup, and after each of two upper layers
    assert read_spec(tmp_path / "k2").distilled
    assert not work_folder(tmp_path / "k2").exists()


def test_fidelity_is_to_the_unchanged_model_when_layers_are_distilled(
    source: Path, tmp_path: Path, texts: list[str]
) -> None:
    report = build_base(source, tmp_path / "k2", 2, RowDtype.INT8, [texts], QUICK)
    model = load_hbert(tmp_path / "k2")
    teacher = Teacher.of_folder(source, model.spec, "cpu", torch.float32)
    judges = encode(load_tokenizer(tmp_path / "k2"), texts[::20], 48)
    assert measure_fidelity(model, judges, teacher=teacher) == report.after
    assert measure_fidelity(model, judges) != report.after


def test_same_base_is_built_when_the_build_was_stopped_between(
    source: Path, tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student, "_CHECKPOINT_SECONDS", 0.0)
    build_base(source, tmp_path / "whole", 2, RowDtype.INT8, [texts], QUICK)

    def stop(reached: TrainProgress) -> None:
        if reached.done == 23:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_base(source, tmp_path / "k2", 2, RowDtype.INT8, [texts], QUICK, on_progress=stop)
    assert not (tmp_path / "k2").exists()
    seen: list[int] = []
    build_base(source, tmp_path / "k2", 2, RowDtype.INT8, [texts], QUICK, on_progress=lambda at: seen.append(at.done))
    assert seen[0] > 20
    whole, resumed = load_hbert(tmp_path / "whole").state_dict(), load_hbert(tmp_path / "k2").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_distillation_is_not_repeated_when_what_follows_it_fails(
    source: Path, tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(base, "save_hplm", fail)
        with pytest.raises(StorageFull):
            build_base(source, tmp_path / "k2", 2, RowDtype.INT8, [texts], QUICK)
    seen: list[int] = []
    report = build_base(
        source, tmp_path / "k2", 2, RowDtype.INT8, [texts], QUICK, on_progress=lambda at: seen.append(at.done)
    )
    assert seen == []
    assert report == dataclasses.replace(
        build_base(source, tmp_path / "whole", 2, RowDtype.INT8, [texts], QUICK), seconds=report.seconds
    )
    assert not work_folder(tmp_path / "k2").exists()


def test_build_starts_over_when_the_checkpoint_is_of_another_text(
    source: Path, tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(student, "_CHECKPOINT_SECONDS", 0.0)

    def stop(reached: TrainProgress) -> None:
        if reached.done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_base(source, tmp_path / "k2", 2, RowDtype.INT8, [texts], QUICK, on_progress=stop)
    seen: list[int] = []
    build_base(
        source, tmp_path / "k2", 2, corpora=[texts[:90]], config=QUICK, on_progress=lambda at: seen.append(at.done)
    )
    assert seen[0] == 1
    assert "another text" in caplog.text


def test_artifact_is_the_same_when_it_is_made_from_its_difference(
    source: Path, tmp_path: Path, texts: list[str]
) -> None:
    path = tmp_path / "difference.safetensors"
    report = build_base(source, tmp_path / "built", 2, RowDtype.INT8, [texts], QUICK, difference=path)
    difference = read_weight_diff(path)
    assert apply_weight_diff(source, difference, tmp_path / "applied") == report.spec
    built, applied = load_hbert(tmp_path / "built").state_dict(), load_hbert(tmp_path / "applied").state_dict()
    assert all(torch.equal(built[name], applied[name]) for name in built)
    assert report.after is not None
    assert difference.about["after"]["pooled"] == report.after.pooled


def test_estimates_are_of_the_base_as_it_is_saved(source: Path, tmp_path: Path, texts: list[str]) -> None:
    """The difference is rounded, so its rows are others than those that were distilled."""
    config = EstimatorConfig(size=16, steps=60, batch_size=64, learning_rate=1e-2)
    difference = tmp_path / "difference.safetensors"
    report = build_base(
        source, tmp_path / "k2", 2, RowDtype.INT8, [texts], QUICK, estimator=config, difference=difference
    )
    assert report.estimate_error is not None
    assert read_spec(tmp_path / "k2").estimator_size == 16
    apply_weight_diff(source, read_weight_diff(difference), tmp_path / "again")
    for folder in ("k2", "again"):
        model = load_hbert(tmp_path / folder)
        sequences = encode(load_tokenizer(tmp_path / folder), texts[::20], 48)
        keys = np.unique(window_keys(np.concatenate(sequences), np.array([len(ids) for ids in sequences])))
        rows, estimates = window_rows(model, keys), estimated_rows(model, model.estimator, keys)
        error = float(((estimates - rows).norm(dim=1) / rows.norm(dim=1)).mean())
        assert error == pytest.approx(report.estimate_error, rel=0.1)


def test_weight_diff_is_refused_when_the_weights_are_others(source: Path, tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "difference.safetensors"
    build_base(source, tmp_path / "built", 2, corpora=[texts], config=QUICK, difference=path)
    other = tiny_bert_folder(tmp_path / "other", seed=8)
    with pytest.raises(InvalidInput, match="other pretrained weights"):
        apply_weight_diff(other, read_weight_diff(path), tmp_path / "applied")
    assert not (tmp_path / "applied").exists()


def test_distillation_is_refused_when_there_is_no_text(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="needs text"):
        build_base(source, tmp_path / "k2", 2, config=QUICK)
