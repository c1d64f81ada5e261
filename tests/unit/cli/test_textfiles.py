from __future__ import annotations

from pathlib import Path

import pytest

from hmi.cli.textfiles import read_labelled, read_lines
from hmi.errors import InvalidInput


def _read(path: Path) -> list[tuple[str, str]]:
    return read_labelled(path, text_field="text", label_field="label")


def test_json_lines_and_csv_give_the_same_when_they_hold_the_same(tmp_path: Path) -> None:
    lines = tmp_path / "data.jsonl"
    lines.write_text('{"text": "good, \\"very\\"", "label": "pos"}\n\n{"text": "two\\nlines", "label": 0}\n')
    table = tmp_path / "data.csv"
    table.write_text('\ufefflabel,text\npos,"good, ""very"""\n0,"two\nlines"\n')
    assert _read(lines) == _read(table) == [('good, "very"', "pos"), ("two\nlines", "0")]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text":', "line 2: not JSON"),
        ("a.jsonl", "[1]", "line 1: not a JSON object"),
        ("a.jsonl", '{"text": "a"}', "line 1: 'label' is missing"),
        ("a.jsonl", '{"text": ["a"], "label": "b"}', "line 1: 'text' is missing or no text"),
        ("a.csv", "text,label\na\n", "line 2: 'label' is missing"),
        ("a.csv", "sentence,label\na,b\n", "line 2: 'text' is missing"),
    ],
)
def test_line_is_named_when_a_record_is_wrong(tmp_path: Path, name: str, content: str, problem: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInput, match=problem):
        _read(tmp_path / name)


def test_file_is_named_when_it_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    with pytest.raises(InvalidInput, match=r"latin is not UTF-8 text .* byte 3"):
        read_lines(tmp_path / "latin")
    with pytest.raises(InvalidInput, match="absent: No such file"):
        read_lines(tmp_path / "absent")


def test_blank_lines_are_left_out_when_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("one\n \n\ntwo\n")
    assert read_lines(tmp_path / "text") == ["one", "two"]
