from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hmi.cli.client import DataFolder, Running
from hmi.errors import Conflict, InvalidInput

_HOLDER = """
import sys, time
from pathlib import Path
from hmi.cli.client import DataFolder
with DataFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(600)
"""


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "data")
    folder.prepare()
    return folder


def test_folder_is_closed_to_others_when_it_was_open(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    folder = DataFolder(tmp_path / "data")
    folder.prepare()
    assert _mode(folder.path) == 0o700
    assert _mode(folder.path / "logs") == 0o700


def test_folder_is_refused_when_everybody_may_write_to_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(InvalidInput, match="choose one of your own"):
        DataFolder(tmp_path).prepare()
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777


def test_folder_is_refused_and_left_alone_when_it_holds_other_files(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("")
    tmp_path.chmod(0o755)
    with pytest.raises(InvalidInput, match="holds other files"):
        DataFolder(tmp_path).prepare()
    assert _mode(tmp_path) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize("name", ["hmi.db", "lock"])
def test_folder_is_taken_when_an_earlier_run_left_its_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "demo.json").touch()
    DataFolder(tmp_path).prepare()
    assert _mode(tmp_path) == 0o700


def test_folder_is_taken_when_it_holds_only_folders(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    DataFolder(tmp_path).prepare()
    assert _mode(tmp_path) == 0o700


def test_folder_is_refused_when_a_file_is_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(InvalidInput, match="data: File exists"):
        DataFolder(tmp_path / "data").prepare()


def test_secret_is_the_same_when_asked_for_again(folder: DataFolder) -> None:
    assert folder.secret("admin.key", lambda: "first") == "first"
    assert folder.secret("admin.key", lambda: "second") == "first"
    assert _mode(folder.path / "admin.key") == 0o600
    assert folder.find_admin_key() == "first"


def test_secret_is_closed_to_others_when_it_was_open(folder: DataFolder) -> None:
    (folder.path / "admin.key").write_text("kept\n")
    (folder.path / "admin.key").chmod(0o644)
    assert folder.secret("admin.key", lambda: "new") == "kept"
    assert _mode(folder.path / "admin.key") == 0o600


def test_secret_is_generated_when_its_file_is_empty(folder: DataFolder) -> None:
    (folder.path / "admin.key").touch()
    assert folder.secret("admin.key", lambda: "new") == "new"


def test_second_instance_is_refused_by_process_id_when_the_first_runs(folder: DataFolder) -> None:
    command = [sys.executable, "-c", _HOLDER, str(folder.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Conflict, match=rf"in use by process {holder.pid}\b"), folder.locked():
            pass
        holder.kill()
        holder.wait()
        with folder.locked():  # the lock of a process that was killed is free
            assert (folder.path / "lock").read_text() == f"{os.getpid()}\n"


def test_folder_can_be_held_again_when_it_was_given_back(folder: DataFolder) -> None:
    for _ in range(2):
        with folder.locked():
            pass


def test_services_are_found_while_they_are_announced(folder: DataFolder) -> None:
    running = Running(1, "http://127.0.0.1:8000", None)
    with folder.announced(running):
        assert folder.find_running() == running
    assert folder.find_running() is None


def test_nothing_is_found_when_the_announcement_is_damaged(folder: DataFolder) -> None:
    (folder.path / "running.json").write_text('{"pid": 1')
    assert folder.find_running() is None


def test_log_of_the_last_run_is_kept_when_a_new_one_begins(folder: DataFolder) -> None:
    folder.log("api").write_text("before")
    assert folder.log("api").read_text() == ""
    assert (folder.path / "logs" / "api.log.1").read_text() == "before"
