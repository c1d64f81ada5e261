"""Adapters in too little room, needed at once by batches, by running sequences and by those of another base model."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hmi.adapters import Pooling
from hmi.adapters.formats import load_adapter, save_adapter
from hmi.adapters.tiers import pack_adapter
from hmi.engine import Engine, EngineConfig
from hmi.engine.decode.loop import DecodeLoop
from hmi.engine.decode.scheduler import SequenceState
from hmi.errors import Cancelled, StorageFull
from hmi.items import Generation, GenerationParams, Item, ModelRef, Sampling, Task
from hmi.models.convert import convert_pretrained
from hmi.spec import read_spec
from tests.adapter_samples import head, lora_adapter
from tests.engines import FolderSource
from tests.tiny import tiny_decoder_folder, tiny_llama
from tests.waiting import wait_until

MORE = 60


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """Two base models of one width, and three adapters of about one size."""
    folder = tmp_path_factory.mktemp("room")
    pretrained = tiny_decoder_folder(tiny_llama(), folder / "source")
    bases = {name: folder / name for name in ("one", "other")}
    for path in bases.values():
        convert_pretrained(pretrained, path)
    source = FolderSource(bases)
    spec, rng = read_spec(bases["one"]), np.random.default_rng(0)
    for name in ("writer", "judge", "poet"):
        classes = head(rng, 2, hidden=spec.hidden_size, pooling=Pooling.LAST) if name == "judge" else None
        source.adapters[name] = folder / f"{name}.safetensors"
        save_adapter(lora_adapter(rng, 8, spec=spec, sites=spec.sites, head=classes), source.adapters[name])
    return source


@pytest.fixture
def config(source: FolderSource) -> EngineConfig:
    """With room for one adapter."""
    hidden = read_spec(source.bases["one"]).hidden_size
    rows = max(len(_packed(source, name, hidden)) for name in source.adapters)
    return EngineConfig(
        device="cpu",
        dtype="float32",
        device_threads=1,
        cache_bytes=4 * 1024**2,
        device_adapter_bytes=int(1.5 * rows) * hidden * 4,
    )


def _packed(source: FolderSource, name: str, hidden: int) -> Tensor:
    return pack_adapter(load_adapter(source.adapters[name]), hidden, torch.float32).rows


def text(base: str, adapter: str | None, more: int = MORE) -> Item:
    params = GenerationParams(max_tokens=more, sampling=Sampling(temperature=0), ignore_eos=True)
    return Item(ModelRef(base, "general", adapter), Task.GENERATE, tokens=(5, 6, 7), params=params)


def classes(base: str) -> Item:
    return Item(ModelRef(base, "general", "judge"), Task.CLASSIFY, tokens=(5, 6, 7, 8))


class Held:
    """Holds every loop before its first decode step until `go` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running, self.go = threading.Event(), threading.Event()
        decode = DecodeLoop._decode

        def held(loop: DecodeLoop, members: Sequence[SequenceState[Any]]) -> None:
            self.running.set()
            assert self.go.wait(20)
            decode(loop, members)

        monkeypatch.setattr(DecodeLoop, "_decode", held)


def test_others_wait_for_a_running_sequence_that_holds_the_room_and_are_answered(
    source: FolderSource, config: EngineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    with Engine(config, source) as engine:
        first = engine.submit([text("one", "writer")])
        assert held.running.wait(20)
        judged = engine.submit([classes("one")])
        wait_until(lambda: engine._pipeline._deferred)
        beside = engine.submit([text("other", "poet")])
        wait_until(lambda: "other" in engine._decode_loops._loops and engine._decode_loops._loops["other"]._deferred)
        plain = engine.submit([text("other", None, 1)])
        assert plain.result(20)[0].error is None  # what needs no room is not held up
        assert not judged.done()
        assert not beside.done()
        held.go.set()
        outcomes = [future.result(20)[0] for future in (first, judged, beside)]
    assert [outcome.error for outcome in outcomes] == [None, None, None]
    assert isinstance(outcomes[2].result, Generation)
    assert len(outcomes[2].result.tokens) == MORE


@pytest.mark.parametrize("where", ["adapter", "delta"])
@pytest.mark.parametrize("ask", [classes, lambda base: text(base, "judge", 1)], ids=["classes", "text"])
def test_nothing_waits_for_a_full_disk(
    source: FolderSource, config: EngineConfig, monkeypatch: pytest.MonkeyPatch, where: str, ask: Callable[[str], Item]
) -> None:
    item = ask("one")
    changed: dict[str, Any] = {"adapter": "cold"} if where == "adapter" else {"delta": "cold"}
    item = dataclasses.replace(item, model=dataclasses.replace(item.model, **changed))
    find = source.adapter_file

    def full(digest: str) -> Path:
        if digest == "cold":
            raise StorageFull("no room is left to keep it")
        return find(digest)

    monkeypatch.setattr(source, "adapter_file", full)
    with Engine(config, source) as engine:
        (outcome,) = engine.submit([item]).result(20)
        assert isinstance(outcome.error, StorageFull)
        assert engine.submit([ask("one")]).result(20)[0].error is None


def test_the_callback_is_called_for_each_outcome(source: FolderSource, config: EngineConfig) -> None:
    called = list[int]()
    with Engine(config, source) as engine:
        items = [
            classes("one"),
            text("one", "judge", 3),
            Item(ModelRef("none", "general", None), Task.CLASSIFY, text="x"),
        ]
        outcomes = engine.submit(items, lambda: called.append(1)).result(20)
    assert [outcome.error is None for outcome in outcomes] == [True, True, False]
    assert len(called) == 3


@pytest.mark.parametrize("drain", [False, True])
def test_a_deferred_sequence_is_settled_when_the_engine_is_closed(
    source: FolderSource, config: EngineConfig, monkeypatch: pytest.MonkeyPatch, drain: bool
) -> None:
    held = Held(monkeypatch)
    engine = Engine(config, source)
    first = engine.submit([text("one", "writer", 5)])
    assert held.running.wait(20)
    beside = engine.submit([text("other", "poet", 5)])
    wait_until(lambda: "other" in engine._decode_loops._loops and engine._decode_loops._loops["other"]._deferred)
    held.go.set()
    engine.close(drain=drain)
    for future in (first, beside):
        assert (future.result(0)[0].error is None) or (not drain and isinstance(future.result(0)[0].error, Cancelled))
