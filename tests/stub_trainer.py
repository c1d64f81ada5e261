"""A training process that trains nothing: it exchanges the messages of `worker.tuning.trainer` with its worker.

The order's plan says in `stub` how many epochs of how many steps there are, at which step the process dies, hangs or
fails, and what it leaves. Its adapter depends on its file and the number of steps alone, so a resumed training gives
what an uninterrupted one gives. Tests run it with `-m`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from hmi.adapters import Adapter
from hmi.adapters.formats import FILE_NAME, save_adapter
from hmi.errors import HmiError
from tests.adapter_samples import head, lora_adapter, sample_spec
from worker.paths import CHECKPOINT, REPORT
from worker.tuning import Step
from worker.tuning.protocol import GO, Done, Failed, Reply, encode, read_order

__all__ = ["STUB_COMMAND", "expected_adapter"]

STUB_COMMAND = (sys.executable, "-W", "ignore", "-m", "tests.stub_trainer")


def expected_adapter(training: bytes, steps: int) -> Adapter:
    """For a base of `sample_spec(k=2)`."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(training).digest()[:4], "big") + steps)
    return lora_adapter(rng, spec=sample_spec(k=2), head=head(rng, labels=2))


def main() -> int:
    order = read_order(sys.stdin.buffer.readline())
    folder, does = Path(order.folder), dict(order.plan["stub"])
    epochs, each = does.get("epochs", 2), does.get("steps", 3)
    checkpoint = folder / CHECKPOINT
    done = begun = json.loads(checkpoint.read_text())["done"] if checkpoint.exists() else 0
    training = Path(order.training).read_bytes()

    def say(message: Reply) -> bool:
        """Whether the worker continues the training."""
        sys.stdout.buffer.write(encode(message))
        sys.stdout.buffer.flush()
        return not isinstance(message, Step) or sys.stdin.buffer.readline() == GO

    while done < epochs * each:
        done += 1
        if done == does.get("dies_at") and begun <= does.get("until_begun_at", done):
            os.kill(os.getpid(), signal.SIGKILL)
        if done == does.get("silent_at"):
            time.sleep(3600)
        if done == does.get("fails_at"):
            failure = dict(does["failure"])
            say(Failed(failure.pop("kind"), **failure))
            return 1
        on = say(Step(does.get("cost_seconds", 0.0), _progress(done, epochs, each)))
        beside = checkpoint.with_suffix(".tmp")
        beside.write_text(json.dumps({"done": done}))
        beside.replace(checkpoint)
        if not on:
            say(Failed.of(HmiError("stopped", code="cancelled")))
            return 1
    if does.get("leaves") != "nothing":
        save_adapter(expected_adapter(training, done), folder / FILE_NAME)
    (folder / REPORT).write_text(json.dumps(_report(epochs, each)))
    say(Done())
    return 0


def _dev(epoch: int) -> dict[str, Any]:
    return {"name": "accuracy", "loss": 1 / epoch, "values": {"accuracy": 0.5}, "labels": [], "confusion": None}


def _progress(done: int, epochs: int, each: int) -> dict[str, Any]:
    epoch = 1 + (done - 1) // each
    return {
        "done": done,
        "steps": epochs * each,
        "epoch": epoch,
        "epochs": epochs,
        "loss": 1.0 / done,
        "epoch_loss": 1.0 / epoch,
        "dev": _dev(epoch - 1) if epoch > 1 else None,
        "trained_tokens": 10 * done,
        "seconds_left": 1.0,
    }


def _report(epochs: int, each: int) -> dict[str, Any]:
    return {
        "losses": [1.0 / (epoch + 1) for epoch in range(epochs)],
        "dev_scores": [0.5] * epochs,
        "dev": _dev(epochs),
        "best_epoch": epochs,
        "trained_tokens": 10 * epochs * each,
    }


if __name__ == "__main__":
    sys.exit(main())
