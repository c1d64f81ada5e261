from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

import hmi
from hmi.cli.client import DataFolder
from hmi.cli.local.processes import ProcessSpec
from hmi.cli.local.services import ServicePlan, base_environment
from hmi.settings import Settings


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServicePlan:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HMI_SHARD_LINES", "999")  # the settings given in code win
    monkeypatch.setenv("HMI_ADMIN_KEY", "of another process")
    folder = DataFolder(tmp_path / "data")
    folder.prepare()
    return ServicePlan(
        settings=Settings(
            shard_lines=8, docs=False, data_dir=Path("data"), broker_url=SecretStr("redis://:secret@host/0")
        ),
        folder=folder,
        host="127.0.0.1",
        api_port=8000,
        flower_port=5555,
        device="cpu",
        admin_key="the key",
        flower_auth="hmi:password",
    )


def _all(plan: ServicePlan) -> list[ProcessSpec]:
    return [plan.api(), plan.worker(), plan.beat(), plan.flower()]


def test_services_read_the_parents_settings_when_they_start(plan: ServicePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in _all(plan):
        for name in ("HMI_SHARD_LINES", "HMI_DOCS", "HMI_DATA_DIR", "HMI_BROKER_URL", "HMI_ADMIN_KEY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in spec.environment.items():
            if name.startswith("HMI_"):
                monkeypatch.setenv(name, value)
        read = Settings()
        assert read.shard_lines == 8
        assert read.docs is False
        assert read.data_dir == plan.folder.path
        assert read.broker_url.get_secret_value() == "redis://:secret@host/0"


def test_only_the_api_learns_the_admin_key_when_services_start(plan: ServicePlan) -> None:
    keys = {spec.name: spec.environment.get("HMI_ADMIN_KEY") for spec in _all(plan)}
    assert keys == {"api": "the key", "worker": None, "beat": None, "flower": None}
    passwords = {spec.name: spec.environment.get("HMI_FLOWER_AUTH") for spec in _all(plan)}
    assert passwords == {"api": None, "worker": None, "beat": None, "flower": "hmi:password"}


def test_command_lines_hold_no_secret_when_services_start(plan: ServicePlan) -> None:
    for spec in _all(plan):
        assert not {"the key", "hmi:password", "secret"} & set(" ".join(spec.command).split())
        assert spec.command[0] == sys.executable


def test_our_packages_are_found_when_run_from_a_checkout() -> None:
    root = str(Path(hmi.__file__).resolve().parent.parent)
    assert base_environment().get("PYTHONPATH", "").split(":")[0] == root or root in sys.path
