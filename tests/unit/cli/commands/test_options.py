from __future__ import annotations

from pathlib import Path

import pytest

import hmi.cli.client as client_module
from hmi.cli.client import DataFolder, Running
from hmi.cli.commands.options import connect
from hmi.errors import InvalidInput

_OWN = "http://127.0.0.1:8000"


class _Recorded:
    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolder:
    monkeypatch.setenv("HMI_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(client_module, "HmiClient", _Recorded)
    folder = DataFolder(tmp_path / "data")
    folder.prepare()
    return folder


def _connected(url: str | None, key: str | None) -> tuple[str, str]:
    made = connect(url, key)
    assert isinstance(made, _Recorded)
    return made.url, made.key


def test_own_services_and_key_are_used_when_none_are_given(folder: DataFolder) -> None:
    folder.secret("admin.key", lambda: "own")
    with folder.announced(Running(1, _OWN, None)):
        assert _connected(None, None) == (_OWN, "own")
        assert _connected(_OWN + "/", None) == (_OWN + "/", "own")
        assert _connected(None, "given") == (_OWN, "given")


def test_own_key_stays_here_when_another_address_is_given(folder: DataFolder) -> None:
    folder.secret("admin.key", lambda: "own")
    with folder.announced(Running(1, _OWN, None)):
        with pytest.raises(InvalidInput, match=r"which key for http://elsewhere:8000"):
            connect("http://elsewhere:8000", None)
        assert _connected("http://elsewhere:8000", "given") == ("http://elsewhere:8000", "given")


def test_remedy_is_named_when_nothing_runs(folder: DataFolder) -> None:
    with pytest.raises(InvalidInput, match=r"start them with `hmi up`, or give --url"):
        connect(None, "given")
