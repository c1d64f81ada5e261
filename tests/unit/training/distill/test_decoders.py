"""Making hGPTs, on tiny models: bases come nearer to the ordinary model, and domains' rows to their own text's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hmi.errors import InvalidInput
from hmi.models.convert import pretrained_tensors, read_weight_diff, weights_digest
from hmi.models.families import load_hgpt, load_tokenizer
from hmi.spec import RowDtype
from hmi.training.delta import DeltaConfig, train_delta
from hmi.training.distill import DistillConfig, Teacher, apply_weight_diff, build_base
from hmi.training.distill.student import _divergence
from hmi.training.lower import WindowBatch, encode
from tests.tiny import TINY_WORDS, tiny_decoder_folder, tiny_gpt2, tiny_llama

Make = Callable[..., Any]
BOTH = pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
QUICK = DistillConfig(steps=30, batch_size=16, learning_rate=3e-3, dtype="float32")


def texts(count: int = 200, words: int = 30) -> list[str]:
    rng = np.random.default_rng(1)
    return [" ".join(TINY_WORDS[word] for word in rng.integers(0, words, rng.integers(3, 10))) for _ in range(count)]


@BOTH
def test_base_comes_nearer_to_the_ordinary_model(make: Make, tmp_path: Path) -> None:
    source = tiny_decoder_folder(make(), tmp_path / "source")
    report = build_base(source, tmp_path / "k2", 2, RowDtype.INT8, [texts()], QUICK)
    assert report.before is not None
    assert report.fitted is not None
    assert report.after is not None
    assert report.fitted.lower < report.before.lower
    assert report.after.upper < min(report.fitted.upper, report.before.upper)
    assert len(report.after.layers) == 3
    assert load_hgpt(tmp_path / "k2").spec.distilled


@BOTH
def test_distillation_brings_the_next_token_distribution_nearer(make: Make, tmp_path: Path) -> None:
    source = tiny_decoder_folder(make(), tmp_path / "source")
    config = dataclasses.replace(QUICK, steps=100, thinned=0.0)
    report = build_base(source, tmp_path / "k2", 2, RowDtype.INT8, [texts(600)], config)
    assert report.before is not None
    assert report.after is not None
    before, after = report.before.perplexity, report.after.perplexity
    assert before is not None
    assert after is not None
    assert after.original == before.original > 1
    assert 0 < after.divergence < 0.8 * before.divergence
    assert after.agreement > before.agreement


@BOTH
def test_weight_diff_gives_the_same_base_again(make: Make, tmp_path: Path) -> None:

    source = tiny_decoder_folder(make(), tmp_path / "source")
    config = DistillConfig(steps=2, batch_size=8, dtype="float32")
    build_base(source, tmp_path / "a", 2, RowDtype.INT8, [texts(60)], config, difference=tmp_path / "d.safetensors")
    apply_weight_diff(source, read_weight_diff(tmp_path / "d.safetensors"), tmp_path / "b", RowDtype.INT8)
    one, other = load_hgpt(tmp_path / "a").state_dict(), load_hgpt(tmp_path / "b").state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_tied_output_embedding_is_the_inputs_when_a_file_has_it_too(tmp_path: Path) -> None:
    source = tiny_decoder_folder(tiny_llama(tie_word_embeddings=True), tmp_path / "source")
    plain = pretrained_tensors(source)
    weights = load_file(source / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    assert weights_digest(pretrained_tensors(source)) == weights_digest(plain)
    config = DistillConfig(steps=2, batch_size=8, dtype="float32")
    build_base(source, tmp_path / "a", 2, RowDtype.INT8, [texts(60)], config, difference=tmp_path / "d.safetensors")
    apply_weight_diff(source, read_weight_diff(tmp_path / "d.safetensors"), tmp_path / "b", RowDtype.INT8)


@BOTH
def test_teacher_and_student_read_the_same_tokens(make: Make, tmp_path: Path) -> None:
    """With a k = 0 model's weights in every layer, a text of one token has nothing that its window lacks."""
    source = tiny_decoder_folder(make(), tmp_path / "source")
    build_base(source, tmp_path / "k2", 2)
    model = load_hgpt(tmp_path / "k2")
    batch = WindowBatch.of([np.array([7]), np.array([9, 11, 13, 15])], looks_back=True)
    with torch.no_grad():
        rows = model.lower(batch.windows)
        ours = list(model.upper_states(model.merge(rows[batch.index]), batch.mask))
        full = Teacher(model).states(batch)
    for a, b in zip(ours, full, strict=True):
        if make is tiny_llama:  # rotary attention knows distances alone, so three tokens are a whole text
            torch.testing.assert_close(a[0, 0], b[0, 0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(a[1, :3], b[1, :3], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(a[1, 3], b[1, 3], atol=1e-3)


@BOTH
def test_delta_brings_a_domains_states_nearer(make: Make, tmp_path: Path) -> None:
    source = tiny_decoder_folder(make(), tmp_path / "source")
    build_base(source, tmp_path / "k2", 2, corpora=[texts()])
    config = DeltaConfig(rank=4, steps=40, batch_size=16, learning_rate=1e-2, nearness=0.0, dtype="float32")
    trained = train_delta(tmp_path / "k2", texts(160, 8), config)
    assert trained.report.after.upper < 0.97 * trained.report.before.upper
    ids = encode(load_tokenizer(tmp_path / "k2"), ["w1 w2"], 9)[0]
    assert len(ids) == 4


@BOTH
def test_divergence_in_pieces_equals_the_whole_with_gradients(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_decoder_folder(make(), tmp_path / "source")
    build_base(source, tmp_path / "k2", 2)
    model = load_hgpt(tmp_path / "k2")
    torch.manual_seed(1)
    ours, wanted = torch.randn(11, model.spec.hidden_size, requires_grad=True), torch.randn(11, model.spec.hidden_size)
    monkeypatch.setattr("hmi.training.distill.student._LOGITS", 4)
    found = _divergence(model, ours, model, wanted)
    target = model.logits(wanted).log_softmax(-1).detach()
    plain = torch.nn.functional.kl_div(
        model.logits(ours).log_softmax(-1), target, reduction="batchmean", log_target=True
    )
    torch.testing.assert_close(found, plain)
    (gradient,) = torch.autograd.grad(found, ours)
    (expected,) = torch.autograd.grad(plain, ours)
    torch.testing.assert_close(gradient, expected)


def test_distillation_that_diverges_ends_before_its_weights_are_saved(tmp_path: Path) -> None:
    source = tiny_decoder_folder(tiny_llama(), tmp_path / "source")
    config = dataclasses.replace(QUICK, learning_rate=1e30)
    with pytest.raises(InvalidInput, match="is not finite; take a lower learning rate"):
        build_base(source, tmp_path / "k2", 2, RowDtype.INT8, [texts()], config)
    assert not (tmp_path / "k2").exists()
