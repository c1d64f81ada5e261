"""Sharing cores with other processes."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from hmi import process as cores
from hmi.process import tune_process


def test_threads_spin_briefly_unless_the_environment_sets_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "setswitchinterval", lambda seconds: None)
    monkeypatch.setattr(cores, "_keep_freed_memory", lambda: None)
    unset: dict[str, str] = {}
    tune_process(unset)
    assert 0 < int(unset["GOMP_SPINCOUNT"]) < 100_000
    chosen = {"GOMP_SPINCOUNT": "7"}
    tune_process(chosen)
    assert chosen == {"GOMP_SPINCOUNT": "7"}


def test_torch_is_not_loaded_before_it_can_be_tuned() -> None:
    program = "import sys, hmi.process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_freed_memory_is_used_again_when_a_thread_asks_for_as_much() -> None:
    # A hundred pieces of 32 MB, each freed before the next: without the setting each touches 8,192 fresh pages.
    program = """
import os, resource, threading
from hmi.process import tune_process
tune_process(os.environ)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    bytearray(b"x") * (32 << 20)
    before = faults()
    for _ in range(100):
        bytearray(b"x") * (32 << 20)
    print(faults() - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    if "glibc" in platform.libc_ver()[0]:  # other C libraries have no such setting
        assert int(done.stdout) < 8192
