"""The private data folder of an embedded set-up: secrets, logs, and the addresses of running services."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hmi.errors import Conflict, InvalidInput


@dataclass(frozen=True, slots=True)
class Running:
    """Where the services of a data folder answer."""

    pid: int
    api_url: str
    flower_url: str | None


class DataFolder:
    """A folder that only its owner can enter."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.admin_key_file = self.path / "admin.key"
        self._lock_file = self.path / "lock"
        self._running_file = self.path / "running.json"

    def prepare(self) -> None:
        """Create the folder and close it to other users. Raises `InvalidInput` where that fails."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
            # Closing a shared folder such as /tmp would lock other users out, and a folder with other files, a checkout
            # or a home, was most likely named by mistake.
            if found.st_mode & stat.S_IWOTH or found.st_uid != os.geteuid():
                raise InvalidInput(f"data folder {self.path}: it belongs to others too; choose one of your own")
            # Services that were started one by one leave the catalog alone.
            is_ours = self._lock_file.exists() or (self.path / "hmi.db").exists()
            if not is_ours and any(path.is_file() for path in self.path.iterdir()):
                raise InvalidInput(f"data folder {self.path}: it holds other files; choose a new or an empty folder")
            self.path.chmod(0o700)
            self._lock_file.touch(mode=0o600)
            (self.path / "logs").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"data folder {self.path}: {error.strerror}") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against a second instance. Raises `Conflict` naming the process that holds it.

        The kernel releases the lock when the process ends, so it is never stale, whatever process id the file names.
        """
        with os.fdopen(os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = file.read().strip() or "unknown"
                raise Conflict(
                    f"data folder {self.path} is in use by process {holder}; stop that one or choose another folder"
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def secret(self, name: str, generate: Callable[[], str]) -> str:
        """The content of the file `name`, which `generate` makes on the first use; only its owner can read it."""
        path = self.path / name
        with contextlib.suppress(FileNotFoundError):
            path.chmod(0o600)
            if kept := path.read_text().strip():
                return kept
        value = generate()
        self._write(path, value + "\n")
        return value

    @contextlib.contextmanager
    def announced(self, running: Running) -> Iterator[None]:
        """Let other commands find the services while the block runs."""
        self._write(self._running_file, json.dumps(dataclasses.asdict(running)) + "\n")
        try:
            yield
        finally:
            self._running_file.unlink(missing_ok=True)

    def find_running(self) -> Running | None:
        """The services announced last. After a crash they may be gone."""
        try:
            return Running(**json.loads(self._running_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def find_admin_key(self) -> str | None:
        try:
            return self.admin_key_file.read_text().strip() or None
        except OSError:
            return None

    def log(self, name: str) -> Path:
        """A new log file of this run; the last run's is kept beside it."""
        path = self.path / "logs" / f"{name}.log"
        if path.exists():
            path.replace(path.with_suffix(".log.1"))
        path.touch(mode=0o600)
        return path

    @staticmethod
    def _write(path: Path, text: str) -> None:
        """Whole or not at all, and never readable by others, not even while it is written."""
        beside = path.with_name(f".{path.name}.tmp")
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        beside.replace(path)
