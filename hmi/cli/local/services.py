"""The command line and the environment of each service.

The children get the parent's settings as HMI_* variables, so that a setting from the environment, a .env file or code
is the same in all of them.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

import hmi
from hmi.cli.client import DataFolder
from hmi.cli.local.processes import ProcessSpec
from hmi.settings import Settings

_PREFIX = "HMI_"


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """The inputs of the services' command lines and environments."""

    settings: Settings  # with the database, broker and data folder of the services
    folder: DataFolder
    host: str
    api_port: int
    flower_port: int | None  # None leaves Flower out
    device: str
    admin_key: str
    flower_auth: str  # `user:password`

    def api(self) -> ProcessSpec:
        # The API alone gets the admin key, which it adds to the catalog.
        extra = {"HMI_ADMIN_KEY": self.admin_key}
        return self._python("api", ("api", "--host", self.host, "--port", str(self.api_port)), extra)

    def worker(self) -> ProcessSpec:
        # A worker that stops finishes its shards. One that takes longer is killed, and the lease returns the shard to
        # the queue at the next start.
        return self._python("worker", ("worker", "run", "--device", self.device), stop_seconds=30)

    def beat(self) -> ProcessSpec:
        return self._python("beat", ("worker", "beat", "--schedule", str(self.folder.path / "beat-schedule")))

    def flower(self) -> ProcessSpec:
        address = ("--address", self.host, "--port", str(self.flower_port))
        return self._python("flower", ("worker", "flower", *address), {"HMI_FLOWER_AUTH": self.flower_auth})

    def _python(
        self, name: str, module: tuple[str, ...], extra: Mapping[str, str] | None = None, stop_seconds: float = 10
    ) -> ProcessSpec:
        environment = base_environment() | _settings_environment(self.settings) | dict(extra or {})
        # -P: Python must not import a folder named `api` from the working directory.
        command = (sys.executable, "-P", "-m", *module)
        return ProcessSpec(name, command, environment, self.folder.log(name), stop_seconds)


def base_environment() -> dict[str, str]:
    """The parent's environment without HMI's variables, and with our packages on the path."""
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(_PREFIX)}
    environment["PYTHONUNBUFFERED"] = "1"
    root = Path(hmi.__file__).resolve().parent.parent
    installed = [*site.getsitepackages(), site.getusersitepackages()]
    if root not in {Path(folder).resolve() for folder in installed}:
        # In a checkout `api` and `worker` are beside `hmi`.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), environment.get("PYTHONPATH"))))
    return environment


def _settings_environment(settings: Settings) -> dict[str, str]:
    """Every setting that is set, except the admin key."""
    environment = {}
    for name in settings.model_fields_set - {"admin_key"}:
        value = getattr(settings, name)
        if value is None:
            continue
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        elif isinstance(value, Path):
            value = value.absolute()
        environment[f"{_PREFIX}{name.upper()}"] = str(value)
    return environment
