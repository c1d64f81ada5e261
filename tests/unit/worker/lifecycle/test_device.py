from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hmi.errors import InvalidInput
from worker.lifecycle import PinnedDevice, device, node_name

ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests may have imported torch."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    """A /dev with two cards."""
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("requested", "before", "engine", "visible", "label"),
    [
        ("cpu", None, "cpu", "", "cpu"),
        ("auto", None, "auto", "0", "cuda0"),
        ("auto", "", "cpu", "", "cpu"),
        ("auto", "3,1", "auto", "3", "cuda3"),
        ("cuda", None, "cuda:0", "0", "cuda0"),
        ("cuda:1", None, "cuda:0", "1", "cuda1"),
        ("cuda:1", "5,GPU-8ac", "cuda:0", "GPU-8ac", "cudaGPU-8ac"),
    ],
)
def test_one_card_is_visible_when_pinned(
    cards: Path, requested: str, before: str | None, engine: str, visible: str, label: str
) -> None:
    environment = {} if before is None else {"CUDA_VISIBLE_DEVICES": before}
    pinned = device.pin_device(requested, environment, cards)
    assert pinned.engine == engine
    assert environment == {"CUDA_VISIBLE_DEVICES": visible} | (ORDER if visible else {})
    assert pinned.label("cpu" if engine == "cpu" else "cuda:0") == label


def test_cpu_is_taken_when_there_is_no_card(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    assert device.pin_device("auto", environment, tmp_path) == PinnedDevice("cpu", None)
    assert environment == {"CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize("requested", ["gpu", "cuda:x", "cuda:-1", "cuda:2"])
def test_device_is_refused_when_it_is_unknown(requested: str) -> None:
    with pytest.raises(InvalidInput, match=requested):
        device.pin_device(requested, {"CUDA_VISIBLE_DEVICES": "0,1"})


def test_pinning_is_refused_when_torch_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    with pytest.raises(RuntimeError, match="torch"):
        device.pin_device("cpu", {})


def test_worker_modules_do_not_load_torch_when_imported() -> None:
    program = "import sys, worker.__main__, worker.process; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_label_follows_the_engine_when_it_fell_back_to_the_cpu() -> None:
    assert PinnedDevice("auto", "0").label("cpu") == "cpu"


def test_node_name_says_device_and_host() -> None:
    assert node_name(None, "cuda1").startswith("hmi-cuda1@")
    assert node_name("left", "cpu").startswith("left@")
    assert node_name("left@rack", "cpu") == "left@rack"
