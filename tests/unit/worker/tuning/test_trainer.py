from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

from tests.waiting import wait_until
from worker.tuning.process import trainer_command

ENDED_BY_INPUT = 1  # its input ended before there was an order


def ignored(pid: int) -> set[signal.Signals]:
    found = re.search(r"^SigIgn:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    mask = int(found[1], 16) if found else 0
    return {each for each in signal.Signals if mask >> (each - 1) & 1}


def test_signals_to_the_process_group_are_ignored() -> None:
    ignoring = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with subprocess.Popen(trainer_command(), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: ignored(process.pid) >= set(ignoring), what="the process's start")
            for each in ignoring:
                process.send_signal(each)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(30) == ENDED_BY_INPUT
        finally:
            process.kill()
