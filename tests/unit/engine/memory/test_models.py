"""A warning for the operator when a budget is too small."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from hmi.bench import OneBase
from hmi.engine import Engine, EngineConfig
from hmi.knowledge.lookup import KnowledgeTree
from hmi.models.convert import convert_pretrained
from hmi.models.layers import PAGE_TOKENS, page_bytes
from hmi.spec import read_spec
from tests.tiny import tiny_base, tiny_decoder_folder, tiny_llama

WARNING = "longer ones end early"


def load(folder: Path, cache_bytes: int) -> None:
    spec = read_spec(folder)
    source = OneBase("digest", folder, KnowledgeTree(0, {"general": None}, {}, spec.row_dtype, spec.hidden_size))
    config = EngineConfig(
        device="cpu", dtype="float32", device_threads=1, device_adapter_bytes=2**20, cache_bytes=cache_bytes
    )
    with Engine(config, source) as engine:
        engine.load_base("digest")


@pytest.mark.parametrize("is_short", [True, False])
def test_a_cache_that_holds_no_whole_text_is_warned_of_when_a_decoder_is_loaded(
    is_short: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    convert_pretrained(tiny_decoder_folder(tiny_llama(), tmp_path / "source"), tmp_path / "base")
    spec = read_spec(tmp_path / "base")
    needed = page_bytes(spec, torch.float32) * spec.max_positions // PAGE_TOKENS
    with caplog.at_level(logging.WARNING):
        load(tmp_path / "base", needed - is_short)
    warnings = [message for message in caplog.messages if WARNING in message]
    assert len(warnings) == is_short
    assert all(str(needed) in message for message in warnings)


def test_no_cache_is_spoken_of_when_an_encoder_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(tiny_base(tmp_path, k=0), 1)
    assert not any(WARNING in message for message in caplog.messages)
