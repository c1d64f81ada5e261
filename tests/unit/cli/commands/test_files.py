from __future__ import annotations

from pathlib import Path

import pytest

from hmi.cli.commands.files import read_lines
from hmi.errors import InvalidInput


def test_file_is_named_when_it_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    with pytest.raises(InvalidInput, match=r"latin is not UTF-8 text .* byte 3"):
        read_lines(tmp_path / "latin")
    with pytest.raises(InvalidInput, match="absent: No such file"):
        read_lines(tmp_path / "absent")


def test_blank_lines_are_left_out_when_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("one\n \n\ntwo\n")
    assert read_lines(tmp_path / "text") == ["one", "two"]
