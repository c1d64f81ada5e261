"""Training reads what serving would look up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hmi.knowledge import unpack, window_keys, without_next, without_prev
from hmi.knowledge.store import round_trip
from hmi.models.convert import convert_pretrained
from hmi.models.families import HBert, load_hbert, load_tokenizer
from hmi.training.lower import LowerStates, SimulatedTree, encode, leave_one_out, states, text_chunks, window_rows
from hmi.training.lower.backoff import longest_known
from hmi.training.lower.states import estimated_rows
from tests.estimators import random_estimator
from tests.tiny import tiny_bert_folder

TEXTS = ["w1 w2 w3", "w2", "w1 w2 w3 w4 w5 w6", "w3 w2 w1"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("bases")
    source = tiny_bert_folder(folder / "source")
    for k in (0, 2):
        convert_pretrained(source, folder / f"k{k}", k=k)
    return {k: folder / f"k{k}" for k in (0, 2)}


def states_of(base: Path) -> tuple[HBert, list[np.ndarray], LowerStates]:
    model = load_hbert(base)
    sequences = encode(load_tokenizer(base), TEXTS, 48)
    return model, list(sequences), LowerStates(model, sequences)


def test_states_are_the_rounded_rows_of_windows_when_layers_are_looked_up(bases: dict[int, Path]) -> None:
    model, sequences, states = states_of(bases[2])
    model.correction.position.normal_(generator=torch.Generator().manual_seed(1))
    hidden, mask = states.batch([2, 0])
    for row, number in enumerate((2, 0)):
        ids = [-1, *sequences[number].tolist(), -1]
        windows = torch.tensor([ids[t : t + 3] for t in range(len(ids) - 2)])
        rows = torch.from_numpy(round_trip(model.lower(windows).numpy(), model.spec.row_dtype))
        expected = rows + model.correction.position[: len(rows)]
        torch.testing.assert_close(hidden[row][mask[row]], expected, atol=1e-5, rtol=0)


def test_states_are_the_embeddings_when_nothing_is_looked_up(bases: dict[int, Path]) -> None:
    model, sequences, states = states_of(bases[0])
    hidden, mask = states.batch([3, 1])
    torch.testing.assert_close(hidden[0][mask[0]], model.embed(torch.from_numpy(sequences[3])[None])[0])
    torch.testing.assert_close(hidden[1][mask[1]], model.embed(torch.from_numpy(sequences[1])[None])[0])


def test_mask_counts_the_tokens_when_lengths_differ(bases: dict[int, Path]) -> None:
    _, sequences, states = states_of(bases[2])
    _, mask = states.batch(range(len(states)))
    assert mask.sum(1).tolist() == [len(ids) for ids in sequences] == states.lengths.tolist()


def test_unknown_windows_are_estimated_when_there_is_an_estimator(bases: dict[int, Path]) -> None:
    model, estimator = load_hbert(bases[2]), random_estimator(32, seed=4)
    learnt, asked = (encode(load_tokenizer(bases[2]), some, 48) for some in (TEXTS, ["w1 w2 w9", "w1 w2 w3"]))
    tree = SimulatedTree(estimates=True)
    LowerStates(model, learnt, view=tree.view_train, estimator=estimator)
    hidden, _ = LowerStates(model, asked, view=tree.view_other, estimator=estimator).batch([0, 1])
    known = {window for ids in learnt for window in windows_of(ids)}
    for row, ids in enumerate(asked):
        for place, window in enumerate(windows_of(ids)):
            tokens = torch.tensor([[-1, each, -1] for each in window])
            alone = rounded(model, tokens) * (tokens[:, 1:2] >= 0)
            expected = (
                rounded(model, torch.tensor([window]))
                if window in known
                else estimator(alone, torch.tensor([[0, 1, 2]]))
            )
            found = hidden[row, place] - model.correction.position[place]
            torch.testing.assert_close(found, expected[0], atol=1e-5, rtol=0)
    assert {window in known for ids in asked for window in windows_of(ids)} == {True, False}
    with pytest.raises(ValueError, match="no estimator"):
        LowerStates(model, asked, view=tree.view_other)


def windows_of(ids: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    padded = (-1, *ids.tolist(), -1)
    return [padded[at : at + 3] for at in range(len(ids))]


def rounded(model: HBert, windows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.from_numpy(round_trip(model.lower(windows).numpy(), model.spec.row_dtype))


def test_long_text_keeps_its_last_special_token_when_it_is_cut(bases: dict[int, Path]) -> None:
    tokenizer = load_tokenizer(bases[2])
    whole, cut = encode(tokenizer, ["w1 w2 w3 w4"], 48)[0], encode(tokenizer, ["w1 w2 w3 w4"], 4)[0]
    assert cut.tolist() == [*whole[:3].tolist(), whole[-1]]


def test_texts_are_encoded_a_part_at_a_time_in_their_order(
    bases: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(bases[2])
    texts = [f"w{number} " * (number % 7 + 1) for number in range(50)]
    whole = [ids.tolist() for ids in encode(tokenizer, texts, 5)]
    monkeypatch.setattr(states, "_CHARACTERS", 20)
    parts = list(text_chunks(texts))
    assert [text for part in parts for text in part] == texts
    assert all(len(part) == 1 or sum(map(len, part)) <= 20 for part in parts)
    assert 1 < len(parts) < 50
    assert [ids.tolist() for ids in encode(tokenizer, texts, 5)] == whole
    assert list(text_chunks([])) == []


def test_rows_are_written_into_the_given_tensor(bases: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model, estimator = load_hbert(bases[2]), random_estimator(32, seed=4)
    sequences = encode(load_tokenizer(bases[2]), TEXTS, 48)
    keys = np.unique(window_keys(np.concatenate(sequences), np.array([len(ids) for ids in sequences])))
    rows, estimates = window_rows(model, keys), estimated_rows(model, estimator, keys)
    monkeypatch.setattr(states, "_CHUNK", 3)
    room = torch.zeros(2, len(keys) + 1, 32)
    assert window_rows(model, keys, out=room[0, :-1]).data_ptr() == room.data_ptr()
    estimated_rows(model, estimator, keys, out=room[1, :-1])
    torch.testing.assert_close(room[:, :-1], torch.stack([rows, estimates]), atol=1e-5, rtol=0)
    assert not room[:, -1].any()


def test_rows_are_those_of_the_longest_known_ngram_under_backoff(bases: dict[int, Path]) -> None:
    model = load_hbert(bases[2])
    tokenizer = load_tokenizer(bases[2])
    learnt, asked = encode(tokenizer, TEXTS, 48), encode(tokenizer, ["w1 w2 w9", "w4 w5 w6"], 48)
    tree = SimulatedTree()
    windows = window_keys(np.concatenate(learnt), np.array([len(ids) for ids in learnt]))
    for sequences, see, expected in (
        (learnt, tree.view_train, leave_one_out(windows, np.array([len(ids) for ids in learnt]))),
        (asked, tree.view_other, None),
    ):
        hidden, mask = LowerStates(model, sequences, view=see).batch(range(len(sequences)))
        if expected is None:
            known = np.unique(np.concatenate([windows, without_next(windows), without_prev(windows)]))
            lengths = np.array([len(ids) for ids in sequences])
            expected = longest_known(window_keys(np.concatenate(sequences), lengths), known)
        rows = model.lower(torch.from_numpy(unpack(expected))).detach().numpy()
        wanted = torch.from_numpy(round_trip(rows, model.spec.row_dtype))
        torch.testing.assert_close(hidden[mask], wanted, atol=1e-3, rtol=0)
