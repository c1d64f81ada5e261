"""Text and models out of packages: read, split and checked."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from examples.data import (
    Part,
    Sentence,
    fetch_sentences,
    find_pretrained,
    pretrained,
    read_sentences,
    sentences,
    thinned,
)
from examples.data.sentences import SENTENCE_FILES
from hmi.errors import Corrupt, HmiError

GOOD = "1\t3.5\tA fine film.\r\n2\t-0.5\tSo so.\r\n3\t-0.6\tNot good.\r\n"


def archive_of(folder: Path, content: str, names: tuple[str, ...] = tuple(SENTENCE_FILES.values())) -> Path:
    """An archive built as the real one is: an archive inside an archive."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        for name in names:
            _add(tar, f"hutto_ICWSM_2014/{name}", content.encode())
    path = folder / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        _add(tar, "vaderSentiment-3.0/additional_resources/hutto_ICWSM_2014.tar.gz", inner.getvalue())
    return path


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def test_neutral_sentences_are_left_out_when_read(tmp_path: Path) -> None:
    found = read_sentences(archive_of(tmp_path, GOOD))
    assert list(found) == ["movies", "products", "news", "tweets"]
    assert found["news"] == [Sentence("A fine film.", "positive"), Sentence("Not good.", "negative")]


def test_part_follows_the_first_byte_of_the_hash_when_sentences_are_split() -> None:
    for number in range(300):
        sentence = Sentence(f"sentence {number}", "positive")
        first = hashlib.sha256(sentence.text.encode()).digest()[0]
        assert sentence.part is (Part.TRAIN if first < 179 else Part.DEV if first < 205 else Part.TEST)


@pytest.mark.parametrize(
    ("content", "names", "reason"),
    [
        ("1\t3.5\n", tuple(SENTENCE_FILES.values()), r"movie.*, line 1: expected id, rating and text"),
        (GOOD + "x\tgood\ttext", tuple(SENTENCE_FILES.values()), r"line 4"),
        (GOOD, ("other.txt",), "cannot be read; delete it"),
    ],
)
def test_archive_is_refused_when_it_holds_something_else(
    tmp_path: Path, content: str, names: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(Corrupt, match=reason):
        read_sentences(archive_of(tmp_path, content, names))


def test_archive_is_refused_when_it_is_cut_short(tmp_path: Path) -> None:
    path = archive_of(tmp_path, GOOD)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Corrupt, match="delete it and try again"):
        read_sentences(path)


def test_nothing_is_fetched_when_the_cache_holds_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = archive_of(tmp_path, GOOD).rename(tmp_path / "vaderSentiment-3.0.tar.gz")
    monkeypatch.setattr(sentences, "_SHA256", hashlib.sha256(kept.read_bytes()).hexdigest())
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was started"))
    assert fetch_sentences(tmp_path) == (kept, False)


def test_error_says_what_to_do_when_pip_finds_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(HmiError, match=r"put vaderSentiment-3\.0\.tar\.gz into .* by hand") as caught:
        fetch_sentences(tmp_path)
    assert caught.value.code == "text_unavailable"
    assert list(tmp_path.iterdir()) == []


def test_thinning_reaches_from_beginning_to_end() -> None:
    every = [Sentence(str(number), "positive") for number in range(100)]
    assert [each.text for each in thinned(every, 4)] == ["0", "25", "50", "75"]
    assert len(thinned(every, 1000)) == 100


def test_pretrained_folder_is_found_when_its_package_is_installed() -> None:
    assert (find_pretrained() / "config.json").exists()


def test_extra_is_named_when_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "_PRETRAINED", "no_such_package_at_all")
    with pytest.raises(HmiError, match=r"hmi\[demo\]"):
        find_pretrained()
