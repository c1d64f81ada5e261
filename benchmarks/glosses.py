"""A larger text for measurements: WordNet's glosses, by subject.

The 117,659 definitions, with their example sentences, of Princeton's WordNet 3.0 ("WordNet: An Electronic Lexical
Database", Fellbaum ed., 1998), as Debian's package `wordnet-base` carries them: two million tokens. A gloss lies in
one of 45 *subjects*, WordNet's lexicographer files. apt fetches the package, and checks its signature,
when a measurement asks for it; only its four data files are kept, in a cache.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from hmi.errors import Corrupt, HmiError

_PACKAGE = "wordnet-base"
_FILES = tuple(f"data.{part}" for part in ("noun", "verb", "adj", "adv"))
_FETCH_SECONDS = 180

# lexnames(5WN), in the order of their numbers.
_SUBJECTS = (
    *("adj.all", "adj.pert", "adv.all"),
    *(
        f"noun.{name}"
        for name in (
            *("tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event"),
            *("feeling", "food", "group", "location", "motive", "object", "person", "phenomenon", "plant"),
            *("possession", "process", "quantity", "relation", "shape", "state", "substance", "time"),
        )
    ),
    *(
        f"verb.{name}"
        for name in (
            *("body", "change", "cognition", "communication", "competition", "consumption", "contact"),
            *("creation", "emotion", "motion", "perception", "possession", "social", "stative", "weather"),
        )
    ),
    "adj.ppl",
)


def fetch_glosses(cache: Path) -> Path:
    """The folder with WordNet's data files below `cache`, fetched where it is not there yet.

    Raises `HmiError` (code `text_unavailable`) where apt is not here or cannot fetch the package.
    """
    cache = cache.resolve()  # dpkg-deb runs in another folder
    folder = cache / _PACKAGE
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as name:
        beside = Path(name)
        _run(cache, ["apt-get", "--quiet=2", "download", _PACKAGE], beside)
        packages = sorted(beside.glob("*.deb"))
        if not packages:
            raise _unavailable(cache, "apt-get left no package")
        _run(cache, ["dpkg-deb", "--extract", str(packages[0]), "unpacked"], beside)
        chosen = beside / "chosen"
        chosen.mkdir()
        for file in _FILES:
            found = beside / "unpacked" / "usr" / "share" / "wordnet" / file
            if not found.is_file():
                raise _unavailable(cache, f"{packages[0].name} holds no {file}")
            shutil.move(found, chosen / file)
        try:
            chosen.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another run was faster
                raise
    return folder


def read_glosses(folder: Path) -> dict[str, list[str]]:
    """Glosses by subject, in the order of the files; what stands there twice is given once.

    Raises `Corrupt`.
    """
    glosses: dict[str, dict[str, None]] = {subject: {} for subject in _SUBJECTS}
    for name in _FILES:
        path = folder / name
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Corrupt(f"{path} cannot be read; delete {folder} and try again: {error}") from error
        for number, line in enumerate(lines, start=1):
            if line.startswith("  "):  # the licence, before the entries
                continue
            entry, _, gloss = line.partition("|")
            fields = entry.split(maxsplit=2)
            if len(fields) < 3 or not fields[1].isdecimal() or int(fields[1]) >= len(_SUBJECTS):
                raise Corrupt(f"{path}, line {number}: expected an entry of WordNet; delete {folder} and try again")
            if gloss.strip():
                glosses[_SUBJECTS[int(fields[1])]][gloss.strip()] = None
    return {subject: list(each) for subject, each in glosses.items()}


def _run(cache: Path, command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise _unavailable(cache, f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise _unavailable(cache, f"{command[0]} did not end within {_FETCH_SECONDS} s") from None
    if done.returncode:
        raise _unavailable(cache, " ".join(done.stderr.split())[:300] or f"{command[0]} ended with {done.returncode}")


def _unavailable(cache: Path, reason: str) -> HmiError:
    return HmiError(
        f"WordNet's glosses (Debian's {_PACKAGE}) are not at hand: {reason}; put its {', '.join(_FILES)} into "
        f"{cache / _PACKAGE} by hand, or use a Debian with a reachable mirror",
        code="text_unavailable",
    )
