"""The code and the documents use the field's terms; words of a private vocabulary stay out. See `docs/glossary.md`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = (
    "hmi",
    "api",
    "worker",
    "benchmarks",
    "examples",
    "migrations",
    "tests",
    "docs",
    "README.md",
    "ARCHITECTURE.md",
)
SUFFIXES = {".py", ".md", ".svg", ".yaml", ".toml"}

# Pattern, and what to write instead.
BANNED = {
    r"told|telling": "say what the code does: returns, reports, receives",
    r"whoever|nobody|somebody|everybody|anybody": "name the caller, tenant, thread or process",
    r"of[ _]like[ _](?:length|kind)|the like": "of similar length",
    r"(?:goes|go|going|went)[ _]on": "continues, resumes, generates",
    r"is read on|are read on|read further": "decode, generate",
    r"twins?": "duplicate",
    r"wish(?:es)?": "GenerationParams, parameters",
    r"roster": "GenerationScheduler",
    r"solitude": "SharedLock",
    r"foresight": "perplexity",
    r"stand[ -_]?ins?|standins?|stands? in\b": "backoff row, backoff training data",
    r"give[sn]?_back|gave back|gives? back": "release",
    r"leftovers?": "garbage",
    r"by[ _]turns": "in alternating rounds",
    r"overlay": "miss cache",
    r"tally|tallies": "counts, ScoreDelta",
    r"breathe": "yield_hook",
    r"line of ancestors": "ancestor chain",
    r"voters?": "requesters",
    r"hosted": "loaded model",
    r"lanes?": "device threads",
    r"blamed?|to blame|blame=": "count_failure, the failing item",
    r"suspects?": "quarantined",
    r"wanted tree": "desired tree",
    r"parked": "deferred",
    r"which of the (?:two|three) it was": "say it plainly",
    r"stranger'?s?": "foreign, external, untrusted",
}
PATTERN = re.compile(
    "|".join(rf"(?P<p{number}>\b(?:{pattern})\b)" for number, pattern in enumerate(BANNED)), re.IGNORECASE
)


def files() -> list[Path]:
    found = []
    for place in PLACES:
        path = ROOT / place
        found += [path] if path.is_file() else [each for each in sorted(path.rglob("*")) if each.suffix in SUFFIXES]
    return [each for each in found if each != Path(__file__)]


@pytest.mark.parametrize("place", PLACES)
def test_no_word_of_a_private_vocabulary_is_used(place: str) -> None:
    found = []
    for path in files():
        if not path.is_relative_to(ROOT / place):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for hit in PATTERN.finditer(line):
                instead = list(BANNED.values())[int(str(hit.lastgroup)[1:])]
                found.append(f"{path.relative_to(ROOT)}:{number}: {hit.group()!r} ({instead})")
    assert found == [], "\n" + "\n".join(found)


def test_a_banned_word_is_found() -> None:
    assert PATTERN.search("What the tenant is told.")
    assert not PATTERN.search("What the endpoint returns.")
