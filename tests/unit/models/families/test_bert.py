"""hBERT against transformers' BERT, and its window part against its own ordinary layers."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from transformers import BertModel

from hmi.adapters.maths import LoraTensors, SingleAdapter
from hmi.models.convert import convert_pretrained
from hmi.models.families import HBert, load_hbert
from tests.tiny import tiny_bert_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def sequences() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(5, 100, (6, 12), generator=generator)
    lengths = torch.tensor([12, 3, 7, 1, 9, 12])
    return ids, torch.arange(12) < lengths[:, None]


def test_k0_equals_transformers_when_lengths_differ(
    folder: Path, tmp_path: Path, sequences: tuple[torch.Tensor, torch.Tensor]
) -> None:
    ids, mask = sequences
    convert_pretrained(folder, tmp_path)
    ours, theirs = load_hbert(tmp_path), BertModel.from_pretrained(folder)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask.long())
        hidden = ours.upper(ours.embed(ids), mask)
        torch.testing.assert_close(hidden[mask], expected.last_hidden_state[mask], atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.pool(hidden[:, 0]), expected.pooler_output, atol=1e-5, rtol=0)


def test_upper_and_full_lower_together_are_the_ordinary_model_when_k_is_positive(
    folder: Path, tmp_path: Path, sequences: tuple[torch.Tensor, torch.Tensor]
) -> None:
    ids, mask = sequences
    convert_pretrained(folder, tmp_path / "0")
    convert_pretrained(folder, tmp_path / "2", k=2)
    plain, split = load_hbert(tmp_path / "0"), load_hbert(tmp_path / "2")
    with torch.no_grad():
        expected = plain.upper(plain.embed(ids), mask)
        torch.testing.assert_close(
            split.upper(split.full_lower(ids, mask), mask)[mask], expected[mask], atol=1e-5, rtol=0
        )


def _windowed_reference(model: HBert, window: list[int]) -> torch.Tensor:
    """The middle token's state after k ordinary layers over the present tokens."""
    present = [i for i, token in enumerate(window) if token >= 0]
    ids = torch.tensor([[window[i] for i in present]])
    hidden = model.embeddings(ids, model.window.position[present])
    mask = torch.ones_like(ids, dtype=torch.bool)
    for number in range(model.spec.k):
        hidden = model.layers[number](hidden, mask, model._no_adapters)
    state: torch.Tensor = model.window.projection(hidden[0, present.index(1)])
    return state


def test_lower_equals_plain_layers_over_the_window_when_neighbours_are_absent(folder: Path, tmp_path: Path) -> None:
    convert_pretrained(folder, tmp_path, k=2)
    model = load_hbert(tmp_path)
    torch.nn.init.normal_(model.window.projection.weight, generator=torch.Generator().manual_seed(1))
    windows = [[7, 8, 9], [-1, 8, 9], [7, 8, -1], [-1, 8, -1]]
    with torch.no_grad():
        expected = torch.stack([_windowed_reference(model, window) for window in windows])
        torch.testing.assert_close(model.lower(torch.tensor(windows)), expected, atol=1e-5, rtol=0)


def test_rows_are_those_of_changed_weights_when_a_delta_is_given(folder: Path, tmp_path: Path) -> None:
    """A LoRA adds B A to a linear layer's weight; here at every site of every lower layer."""
    convert_pretrained(folder, tmp_path, k=2)
    model, changed = load_hbert(tmp_path), load_hbert(tmp_path)
    generator = torch.Generator().manual_seed(3)
    pairs = {}
    for layer, site in itertools.product(range(4), model.spec.sites):
        inputs, outputs = model.spec.site_shape(site)
        a, b = torch.randn(3, inputs, generator=generator) * 0.1, torch.randn(outputs, 3, generator=generator) * 0.1
        pairs[layer, site] = LoraTensors(a, b)
        changed.get_parameter(f"layers.{layer}.{site.value}.weight").add_(b @ a)
    windows = torch.tensor([[7, 8, 9], [-1, 8, 9], [7, 8, -1], [-1, 8, -1]])
    with torch.no_grad():
        rows = model.lower(windows, SingleAdapter(pairs, {}))
        torch.testing.assert_close(rows, changed.lower(windows), atol=1e-4, rtol=0)
        assert not torch.allclose(rows, model.lower(windows), atol=0.01)


def test_one_token_of_the_last_layer_equals_the_same_token_of_all(
    folder: Path, tmp_path: Path, sequences: tuple[torch.Tensor, torch.Tensor]
) -> None:
    ids, mask = sequences
    convert_pretrained(folder, tmp_path)
    model = load_hbert(tmp_path)
    with torch.no_grad():
        x = model.embed(ids)
        whole = model.layers[0](x, mask, model._no_adapters)
        one = model.layers[0](x, mask, model._no_adapters, only=4)
    torch.testing.assert_close(one[:, 0], whole[:, 4], atol=1e-6, rtol=0)


def test_an_unknown_activation_is_refused_when_the_model_is_made(folder: Path, tmp_path: Path) -> None:
    spec = convert_pretrained(folder, tmp_path)
    with pytest.raises(Exception, match="activation 'maxout'"):
        HBert(dataclasses.replace(spec, activation="maxout"))


def test_states_are_equal_with_gradients(
    folder: Path, tmp_path: Path, sequences: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Training uses another form of attention than serving."""
    ids, mask = sequences
    convert_pretrained(folder, tmp_path)
    model = load_hbert(tmp_path)
    with torch.no_grad():
        served = model.upper(model.embed(ids), mask)
    trained = model.upper(model.embed(ids), mask)
    torch.testing.assert_close(trained[mask], served[mask], atol=1e-5, rtol=0)
