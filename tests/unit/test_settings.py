from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from hmi.settings import GROUPS, Settings


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("HMI_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_are_embedded() -> None:
    settings = Settings()
    assert settings.resolved_database_url.startswith("sqlite:////")
    assert settings.resolved_database_url.endswith("/.hmi/hmi.db")
    assert settings.resolved_storage_url.endswith("/.hmi/storage")
    assert settings.resolved_cache_dir == Path(".hmi/cache")


def test_value_comes_from_the_environment_then_from_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("HMI_SHARD_LINES=10\nHMI_DEVICE=cpu\nOTHER=1\n")
    monkeypatch.setenv("HMI_SHARD_LINES", "20")
    settings = Settings()
    assert (settings.shard_lines, settings.device) == (20, "cpu")


def test_address_is_kept_when_one_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HMI_DATABASE_URL", "postgresql+psycopg://hmi@db/hmi")
    monkeypatch.setenv("HMI_STORAGE_URL", "s3://bucket/prefix")
    monkeypatch.setenv("HMI_CACHE_DIR", "/var/cache/hmi")
    settings = Settings()
    assert settings.resolved_database_url == "postgresql+psycopg://hmi@db/hmi"
    assert settings.resolved_storage_url == "s3://bucket/prefix"
    assert settings.resolved_cache_dir == Path("/var/cache/hmi")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lease_seconds", 0),
        ("lease_seconds", -1),
        ("lease_seconds", "soon"),
        ("rebuild_seconds", "inf"),
        ("flush_seconds", "nan"),
        ("shard_lines", 0),
        ("threads", -1),
        ("worker_threads", 1),
        ("max_file_bytes", 1.5),
    ],
)
def test_an_invalid_setting_is_refused_and_named(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings(**{name: value})  # type: ignore[arg-type]


def test_times_are_refused_when_a_running_shard_would_be_delivered_again() -> None:
    with pytest.raises(ValidationError, match="visibility_timeout_seconds"):
        Settings(visibility_timeout_seconds=100, shard_deadline_seconds=100)
    with pytest.raises(ValidationError, match="lease_seconds"):
        Settings(shard_deadline_seconds=60, lease_seconds=60)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().shard_lines = 1  # type: ignore[misc]


def test_secrets_are_not_shown() -> None:
    settings = Settings(
        broker_url=SecretStr("redis://:hush@host/0"),
        admin_key=SecretStr("hush"),
        database_url="postgresql+psycopg://hmi:hush@db/hmi",
    )
    assert "hush" not in repr(settings)
    assert "hush" not in str(settings)


def test_nothing_reads_the_environment_at_import() -> None:
    program = (
        "import os\n"
        "os.environ['HMI_SHARD_LINES'] = 'none'\n"
        "import hmi.settings\n"
        "os.environ['HMI_SHARD_LINES'] = '7'\n"
        "print(hmi.settings.Settings().shard_lines)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "7"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described_in_a_sentence(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description
    assert description.endswith((".", "..."))


def test_groups_name_settings_in_their_order() -> None:
    names = list(Settings.model_fields)
    assert sorted(GROUPS, key=names.index) == list(GROUPS)
    assert next(iter(GROUPS)) == names[0]
