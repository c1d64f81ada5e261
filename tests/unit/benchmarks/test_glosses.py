from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.glosses import fetch_glosses, read_glosses
from hmi.errors import Corrupt, HmiError

LICENCE = "  1 This software and database is being provided to you\n"
DATA = {
    "data.noun": (
        '00000010 03 n 01 entity 0 000 | that which exists  \n00000020 05 n 01 cat 0 001 @ 00000010 | a pet; "a cat"\n'
    ),
    "data.verb": "00000030 43 v 01 rain 0 000 01 + 01 00 | fall as water | in drops\n",
    "data.adj": "00000040 00 a 01 able 0 000 | having the means\n00000050 44 a 01 sunk 0 000 | having the means\n",
    "data.adv": "00000060 02 r 01 ably 0 000 | with skill\n00000070 02 r 01 well 0 000 | with skill\n",
}


def write_data(folder: Path, **changes: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in DATA.items():
        (folder / name).write_text(LICENCE + changes.get(name.removeprefix("data."), text))
    return folder


def test_glosses_lie_in_their_subjects_and_repeats_once(tmp_path: Path) -> None:
    found = {subject: each for subject, each in read_glosses(write_data(tmp_path / "data")).items() if each}
    assert found == {
        "noun.tops": ["that which exists"],
        "noun.animal": ['a pet; "a cat"'],
        "verb.weather": ["fall as water | in drops"],
        "adj.all": ["having the means"],
        "adj.ppl": ["having the means"],
        "adv.all": ["with skill"],
    }


@pytest.mark.parametrize("line", ["nonsense", "00000010 99 n | a gloss", "00000010 xx n 01 | a gloss"])
def test_file_that_is_not_wordnets_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    folder = write_data(tmp_path / "data", noun=f"{line}\n")
    with pytest.raises(Corrupt, match=r"data\.noun, line 2"):
        read_glosses(folder)


def test_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data")
    (folder / "data.adv").unlink()
    with pytest.raises(Corrupt, match=r"data\.adv cannot be read"):
        read_glosses(folder)


def test_what_is_in_the_cache_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_data(tmp_path / "wordnet-base")
    monkeypatch.setattr(subprocess, "run", _no_run)
    assert fetch_glosses(tmp_path) == folder


def test_data_files_alone_are_kept_when_the_package_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *, cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
        if command[0] == "apt-get":
            (cwd / "wordnet-base_1%3a3.0_all.deb").write_text("packed")
        else:
            write_data(cwd / "unpacked" / "usr" / "share" / "wordnet")
            (cwd / "unpacked" / "usr" / "share" / "wordnet" / "index.noun").write_text("not wanted")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    folder = fetch_glosses(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(DATA)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_reason_is_one_line_when_apt_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: object) -> None:
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "run", run)
    _expect_unavailable(tmp_path, "apt-get is not installed")


def test_reason_is_one_line_when_the_mirror_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 100, "", "E: Unable to locate\n E: package wordnet-base\n")

    monkeypatch.setattr(subprocess, "run", run)
    _expect_unavailable(tmp_path, "E: Unable to locate E: package wordnet-base")


def test_reason_is_one_line_when_apt_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(subprocess, "run", run)
    _expect_unavailable(tmp_path, "did not end within")


def _expect_unavailable(cache: Path, reason: str) -> None:
    with pytest.raises(HmiError, match=reason) as caught:
        fetch_glosses(cache)
    assert caught.value.code == "text_unavailable"
    assert "\n" not in caught.value.message
    assert list(cache.iterdir()) == []


def _no_run(*_: object, **__: object) -> None:
    raise AssertionError("nothing is to be fetched")
