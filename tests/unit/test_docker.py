"""docker/ against the code: no engine is needed to see that they fit each other."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from hmi.catalog.registry.keys import parse_key
from hmi.settings import Settings

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
OURS = sorted(name for name, service in SERVICES.items() if str(service["image"]).startswith("hmi-"))
BESIDE_SETTINGS = {"HMI_FLOWER_AUTH"}  # read by the process that it is for


def load_env_files() -> dict[str, dict[str, str]]:
    scope: dict[str, Any] = {"__file__": str(ROOT / "docker" / "write_env.py"), "__name__": "write_env"}
    source = (ROOT / "docker" / "write_env.py").read_text()
    exec(compile(source, "write_env.py", "exec"), scope)  # noqa: S102 - our own script, which is in no package
    files: dict[str, str] = scope["env_files"]()
    return {name: dict(line.split("=", 1) for line in text.splitlines()) for name, text in files.items()}


def test_every_env_file_is_written_and_used() -> None:
    used = {name for service in SERVICES.values() for name in service.get("env_file", [])}
    assert used == set(load_env_files())


def test_env_files_hold_settings_that_are_read_and_fit_each_other() -> None:
    files = load_env_files()
    names = {name for content in files.values() for name in content if name.startswith("HMI_")}
    known = {f"HMI_{field.upper()}" for field in Settings.model_fields}
    assert names - BESIDE_SETTINGS <= known
    settings = Settings(
        database_url=files["hmi.env"]["HMI_DATABASE_URL"], broker_url=SecretStr(files["hmi.env"]["HMI_BROKER_URL"])
    )
    assert files["postgres.env"]["POSTGRES_PASSWORD"] in settings.database_url
    assert files["redis.env"]["REDIS_PASSWORD"] in settings.broker_url.get_secret_value()
    parse_key(files["admin.env"]["HMI_ADMIN_KEY"])


def test_only_the_api_knows_the_admin_key() -> None:
    assert [name for name in OURS if "admin.env" in SERVICES[name]["env_file"]] == ["api"]


@pytest.mark.parametrize("name", OURS)
def test_service_waits_for_services_that_exist(name: str) -> None:
    assert set(SERVICES[name]["depends_on"]) <= set(SERVICES)


@pytest.mark.parametrize("name", OURS)
def test_command_is_one_that_the_process_takes(name: str) -> None:
    command = SERVICES[name].get("command") or dockerfile_command(SERVICES[name]["build"]["target"])
    if command[:3] == ["python", "-m", "worker"]:
        from worker.__main__ import _parse

        assert _parse(command[3:]).command == command[3]
    elif command[:3] == ["python", "-m", "api"]:
        assert command[3::2] == ["--host", "--port"]
    else:
        assert command == ["hmi", "db", "upgrade"]


@pytest.mark.parametrize("name", OURS)
def test_health_check_is_python_that_parses(name: str) -> None:
    check = SERVICES[name].get("healthcheck", {}).get("test", [])
    for program in check[3:]:
        ast.parse(program)


def dockerfile_command(target: str) -> list[str]:
    """The last CMD of a stage of the Dockerfile."""
    stages = re.split(r"^FROM .* AS ", (ROOT / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)
    stage = next(stage for stage in stages if stage.startswith(f"{target}\n"))
    command: list[str] = ast.literal_eval(re.findall(r"^CMD (\[.*\])$", stage, flags=re.MULTILINE)[-1])
    return command
