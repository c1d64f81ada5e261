"""Looked-up rows on a device: sent as stored and decoded there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hmi.engine import Engine, decode_rows
from hmi.items import Item, ModelRef, Task
from hmi.knowledge import window_keys
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import Table, TableMeta, encode, write_table
from hmi.models.convert import convert_pretrained
from hmi.spec import RowDtype
from tests.engines import FolderSource, numbers, tiny_engine
from tests.tiny import tiny_bert_folder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

DEVICE = "cuda:0"
BASE = "k2"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("row_dtype", list(RowDtype))
def test_the_device_decodes_to_the_bit_what_the_cpu_does(row_dtype: RowDtype, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    stored = encode(rng.standard_normal((500, 768), np.float32), row_dtype)
    codes, positions = torch.from_numpy(stored.rows), torch.from_numpy(rng.integers(0, 500, 3000))
    scales = None if stored.scales is None else torch.from_numpy(stored.scales)
    expected = decode_rows(codes, scales, positions, dtype)
    on_device = None if scales is None else scales.to(DEVICE)
    found = decode_rows(codes.to(DEVICE), on_device, positions.to(DEVICE), dtype)
    assert torch.equal(found.cpu(), expected)


def test_answers_from_a_tree_are_those_of_the_cpu(tmp_path: Path) -> None:
    spec = convert_pretrained(tiny_bert_folder(tmp_path / "bert"), tmp_path / BASE, k=2)
    source = FolderSource({BASE: tmp_path / BASE})
    items = _items(200)
    lengths = np.array([len(item.tokens or ()) for item in items])
    keys = np.sort(np.unique(window_keys(np.concatenate([np.array(item.tokens) for item in items]), lengths)))
    meta = TableMeta("general", BASE, spec.row_dtype, spec.hidden_size, len(keys))
    with tiny_engine(source) as engine:
        write_table(tmp_path / "table", meta, keys, encode(engine.compute_rows(BASE, keys), spec.row_dtype))
        source.trees[BASE] = KnowledgeTree(
            1, {"general": None}, {"general": Table.open(tmp_path / "table")}, spec.row_dtype, spec.hidden_size
        )
    with tiny_engine(source) as on_cpu:
        expected = _answers(on_cpu, items)
    with tiny_engine(source, device=DEVICE) as on_device:
        np.testing.assert_allclose(_answers(on_device, items), expected, rtol=1e-4, atol=1e-4)
        assert on_device.stats().computed_windows == 0


def _items(count: int) -> list[Item]:
    rng = np.random.default_rng(1)
    words = [rng.integers(5, 25, rng.integers(1, 20)).tolist() for _ in range(count)]
    return [Item(ModelRef(BASE, "general", None), Task.EMBED, tokens=(2, *each, 3)) for each in words]


def _answers(engine: Engine, items: list[Item]) -> np.ndarray:
    return np.stack(numbers(engine.submit(items).result(120)))
