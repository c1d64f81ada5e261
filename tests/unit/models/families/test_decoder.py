"""hGPT against transformers: the plain model at k = 0, and windows by transformers' own layers above."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hmi.errors import InvalidInput
from hmi.knowledge import unpack, window_keys
from hmi.models.convert import convert_pretrained
from hmi.models.families import HGpt, load_hbert, load_hgpt
from hmi.spec import Family, Site, read_spec
from tests.tiny import tiny_decoder_folder, tiny_gpt2, tiny_llama

Make = Callable[..., PreTrainedModel]
BOTH = pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
LENGTHS = (1, 2, 3, 5, 8, 13, 21, 30)


def converted(make: Make, folder: Path, k: int = 0, **changes: Any) -> tuple[HGpt, PreTrainedModel]:
    theirs = make(**changes)
    convert_pretrained(tiny_decoder_folder(theirs, folder / "source"), folder / "base", k=k)
    return load_hgpt(folder / "base"), theirs


def prompts(count: int = len(LENGTHS), seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4, 100, (LENGTHS[each % len(LENGTHS)],), generator=generator) for each in range(count)]


def padded(sequences: list[Tensor]) -> tuple[Tensor, Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    lengths = torch.tensor([len(each) for each in sequences])
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]


@torch.no_grad()
def all_logits(model: HGpt, ids: Tensor, mask: Tensor) -> Tensor:
    if not model.spec.k:
        return model.logits(model.upper(model.embed(ids), mask))
    lengths = mask.sum(1).numpy()
    keys = window_keys(ids[mask].numpy(), lengths, looks_back=True)
    rows = torch.zeros(*ids.shape, model.spec.hidden_size)
    rows[mask] = model.lower(torch.from_numpy(unpack(keys)))
    return model.logits(model.upper(model.merge(rows), mask))


@BOTH
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"tie_word_embeddings": True}])
def test_logits_are_those_of_transformers_when_nothing_is_looked_up(
    make: Make, changes: dict[str, Any], tmp_path: Path
) -> None:
    ours, theirs = converted(make, tmp_path, **changes)
    ids, mask = padded(prompts())
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask.long()).logits
    torch.testing.assert_close(all_logits(ours, ids, mask)[mask], expected[mask], atol=1e-4, rtol=1e-5)


@BOTH
def test_texts_are_those_of_transformers_when_they_are_continued_greedily(make: Make, tmp_path: Path) -> None:
    ours, theirs = converted(make, tmp_path)
    for prompt in prompts(4):
        ids = prompt[None]
        expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)  # type: ignore[operator]
        made = ids
        while made.shape[1] < expected.shape[1]:
            best = all_logits(ours, made, torch.ones_like(made, dtype=torch.bool))[:, -1].argmax(-1)
            made = torch.cat([made, best[:, None]], 1)
        assert made.tolist() == expected.tolist()


def windowed(theirs: PreTrainedModel, ids: Tensor, k: int) -> Tensor:
    """Logits `[T, vocabulary]` of one sequence: each window alone through transformers' lower layers, and what comes
    out through its upper ones."""
    body: Any = theirs.base_model
    rows = []
    for end in range(1, len(ids) + 1):
        window = ids[max(0, end - 3) : end]
        absent = 3 - len(window)
        states = body(
            input_ids=torch.cat([torch.zeros(absent, dtype=torch.int64), window])[None],
            attention_mask=(torch.arange(3) >= absent).long()[None],
            position_ids=torch.arange(3)[None],
            output_hidden_states=True,
        ).hidden_states
        rows.append(states[k][0, -1])
    merged = torch.stack(rows)[None]
    if theirs.config.model_type == Family.GPT2:
        merged = merged - body.wpe.weight[: len(ids)]  # transformers adds positions to its input
        layers, body.h = body.h, body.h[k:]
    else:
        layers, body.layers = body.layers, body.layers[k:]
    kept, theirs.config.num_hidden_layers = theirs.config.num_hidden_layers, len(layers) - k
    logits: Tensor = theirs(inputs_embeds=merged, use_cache=False).logits[0]
    theirs.config.num_hidden_layers = kept
    setattr(body, "h" if theirs.config.model_type == Family.GPT2 else "layers", layers)
    return logits


@BOTH
@pytest.mark.parametrize("k", [1, 2])
def test_logits_are_those_of_a_plain_windowed_model_when_layers_are_looked_up(
    make: Make, k: int, tmp_path: Path
) -> None:
    ours, theirs = converted(make, tmp_path, k)
    sequences = prompts()
    ids, mask = padded(sequences)
    found = all_logits(ours, ids, mask)
    with torch.no_grad():
        for each, sequence in enumerate(sequences):
            expected = windowed(theirs, sequence, k)
            torch.testing.assert_close(found[each, : len(sequence)], expected, atol=1e-4, rtol=1e-4)


@BOTH
def test_a_token_has_no_influence_on_earlier_tokens(make: Make, tmp_path: Path) -> None:
    ours, _ = converted(make, tmp_path, 2)
    ids = prompts()[-1]
    changed = ids.clone()
    changed[20] = (changed[20] + 1) % 100
    mask = torch.ones(1, len(ids), dtype=torch.bool)
    one, other = all_logits(ours, ids[None], mask)[0], all_logits(ours, changed[None], mask)[0]
    torch.testing.assert_close(one[:20], other[:20])
    assert not torch.allclose(one[20:], other[20:])


@BOTH
def test_gradients_are_those_of_serving_attention(make: Make, tmp_path: Path) -> None:
    """Training uses its own attention."""
    ours, _ = converted(make, tmp_path)
    ids, mask = padded(prompts())
    served = all_logits(ours, ids, mask)
    trained = ours.logits(ours.upper(ours.embed(ids), mask))
    torch.testing.assert_close(trained[mask], served[mask], atol=1e-4, rtol=1e-4)


def test_spec_describes_the_models(tmp_path: Path) -> None:
    convert_pretrained(tiny_decoder_folder(tiny_llama(), tmp_path / "llama"), tmp_path / "a", k=2)
    spec = read_spec(tmp_path / "a")
    assert (spec.family, spec.key_heads, spec.head_width, spec.rope_theta) == (Family.LLAMA, 2, 8, 10_000.0)
    assert spec.sites == tuple(Site)
    assert spec.site_shape(Site.V) == (32, 16)
    assert spec.eos_token_ids == (3,)
    convert_pretrained(tiny_decoder_folder(tiny_gpt2(), tmp_path / "gpt2"), tmp_path / "b", k=2)
    spec = read_spec(tmp_path / "b")
    assert Site.GATE not in spec.sites
    assert spec.tied


def test_a_decoder_is_refused_as_an_encoder(tmp_path: Path) -> None:
    converted(tiny_gpt2, tmp_path)
    with pytest.raises(InvalidInput, match="an encoder is needed"):
        load_hbert(tmp_path / "base")


@pytest.mark.parametrize(
    ("make", "changes", "reason"),
    [
        (
            tiny_llama,
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "rope_type 'linear'",
        ),
        (tiny_llama, {"attention_bias": True}, "attention_bias"),
        (tiny_gpt2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        (tiny_gpt2, {"activation_function": "mish"}, "activation_function 'mish'"),
    ],
)
def test_what_is_not_understood_is_refused(make: Make, changes: dict[str, object], reason: str, tmp_path: Path) -> None:
    folder = tiny_decoder_folder(make(**changes), tmp_path / "source")
    with pytest.raises(InvalidInput, match=reason):
        convert_pretrained(folder, tmp_path / "base")


def test_windows_look_back_and_stay_within_the_sequence() -> None:
    keys = window_keys(np.array([5, 6, 7, 8, 9]), np.array([4, 1]), looks_back=True)
    assert unpack(keys).tolist() == [[-1, 5, -1], [5, 6, -1], [6, 7, 5], [7, 8, 6], [-1, 9, -1]]
