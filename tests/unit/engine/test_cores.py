"""Sharing cores with other processes."""

from __future__ import annotations

import subprocess
import sys

from hmi.engine.cores import share_cores


def test_threads_spin_briefly_unless_the_operator_said_otherwise() -> None:
    unset: dict[str, str] = {}
    share_cores(unset)
    assert 0 < int(unset["GOMP_SPINCOUNT"]) < 100_000
    chosen = {"GOMP_SPINCOUNT": "7"}
    share_cores(chosen)
    assert chosen == {"GOMP_SPINCOUNT": "7"}


def test_torch_is_not_loaded_before_it_can_be_told() -> None:
    program = "import sys, hmi.engine.cores; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
