"""The engine configuration of a worker's settings."""

from __future__ import annotations

from typing import Any

import pytest

from hmi.engine import EngineConfig
from hmi.settings import Settings
from worker.__main__ import _make_engine
from worker.lifecycle import PinnedDevice


def test_budgets_of_the_settings_are_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[EngineConfig] = []

    def make(config: EngineConfig, source: Any) -> Any:
        made.append(config)

    monkeypatch.setattr("hmi.engine.Engine", make)
    settings = Settings(key_value_bytes=7, generated_rows=3, host_adapter_bytes=11, miss_cache_bytes=13, threads=2)
    source: Any = None
    _make_engine(settings, PinnedDevice("cpu", None), source)
    (config,) = made
    assert (config.cache_bytes, config.generated_rows) == (7, 3)
    assert (config.host_adapter_bytes, config.miss_cache_bytes, config.threads) == (11, 13, 2)


def test_defaults_of_the_settings_are_the_engines() -> None:
    settings, config = Settings(), EngineConfig()
    assert (settings.key_value_bytes, settings.generated_rows) == (config.cache_bytes, config.generated_rows)
