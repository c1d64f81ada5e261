"""What a fine-tuning job costs a batch job that runs beside it, and what it gets done meanwhile.

    python -m benchmarks.beside_training [--quick] [--json] [--shape minilm] [--device cpu] [--dtype auto] [--rounds 5]

A base model with random weights and k = half of its layers, whose rows are all held, answers a job of texts of 8 to 64
tokens, alone and beside a training, by turns. The training is the worker's own: `worker.tuning.trainer` in a process of
its own, niced, which waits after every step for the word of a `worker.pace.Pace` that keeps it to `training_share`. It
has begun when the job begins, and has more to do than it can before the job ends.

- `job_s`, `job_beside_training_s`: medians of the rounds; `training_costs_job` is the median of the rounds' own ratios
  less one, since a machine that is shared may be slower in one round than in another.
- `unpaced_training_costs_job`: the same where the training need not give way, and has only its niceness.
- `steps_per_s_beside_job`, `steps_per_s_idle`: steps of the optimiser, of 32 texts each, that the training did beside
  the paced job, and that it does alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import add_options, alternate, machine
from hmi.bench.bases import make_base, make_tree
from hmi.bench.shapes import SHAPES
from hmi.bench.tenants import OneBase
from hmi.bench.text import random_texts
from hmi.engine.config import EngineConfig
from hmi.engine.engine import Engine
from hmi.engine.request import Item, ModelRef, Task
from hmi.errors import Cancelled
from hmi.settings import Settings
from hmi.training.config import TrainConfig
from hmi.training.examples import TaskKind
from hmi.training.plan import TrainingPlan
from hmi.training.records import FileFormat
from worker.pace import Pace
from worker.tuning.process import TrainingProcess
from worker.tuning.wire import Order, Step

_BASE = "base"
_QUICK_ITEMS, _ITEMS = 1_000, 10_000
_EXAMPLES = 2_000
_EPOCHS = 1_000  # more than any round has time for
_IDLE_SECONDS = 5.0
_BEGIN_SECONDS = 600.0


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    with tempfile.TemporaryDirectory() as name:
        report = _run(options, Path(name))
    print(json.dumps(report, indent=1) if options.json else "\n".join(f"{k}: {v}" for k, v in report.items()))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--rounds", type=int, help="default: 5, with --quick 1")
    parser.add_argument("--items", type=int, help=f"texts of the job; default: {_ITEMS}, with --quick {_QUICK_ITEMS}")
    options = parser.parse_args(argv)
    options.items = options.items or (_QUICK_ITEMS if options.quick else _ITEMS)
    options.rounds = options.rounds or (1 if options.quick else 5)
    return options


def _run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    shape = SHAPES[options.shape]
    make_base(folder / _BASE, shape, shape.num_hidden_layers // 2)
    texts = random_texts(options.items)
    source = OneBase(_BASE, folder / _BASE, make_tree(folder / "tree", folder / _BASE, texts))
    share = Settings.model_fields["training_share"].default
    order = _order(folder, texts[:_EXAMPLES], options)
    with Engine(EngineConfig(device=options.device, dtype=options.dtype), source) as engine:
        items = [Item(ModelRef(_BASE, "general", None), Task.EMBED, text=text) for text in texts]
        engine.submit(items[: len(items) // 4]).result()  # uncounted: everything is loaded and prepared
        rates: list[float] = []

        def beside(share: float) -> float:
            with _Training(order, share, engine.busy) as training:
                begun = training.steps
                seconds = _time(engine, items)
                if share < 1:
                    rates.append((training.steps - begun) / seconds)
                return seconds

        runs: dict[str, Callable[[], float]] = {
            "alone": partial(_time, engine, items),
            "paced": partial(beside, share),
            "unpaced": partial(beside, 1.0),
        }
        found = alternate(runs, options.rounds)
        idle = _steps_alone(order, engine)
        stats = engine.stats()
    return {
        "training_costs_job": _cost(found, "paced"),
        "unpaced_training_costs_job": _cost(found, "unpaced"),
        "training_share": share,
        "job_s": round(statistics.median(found["alone"]), 3),
        "job_beside_training_s": round(statistics.median(found["paced"]), 3),
        "steps_per_s_beside_job": round(statistics.median(rates), 3),
        "steps_per_s_idle": round(idle, 3),
        "rounds": options.rounds,
        "items": len(texts),
        "shape": options.shape,
        "device": stats.device,
        "dtype": stats.dtype,
        "machine": machine(torch.device(stats.device)),
    }


def _cost(found: dict[str, list[float]], name: str) -> float:
    ratios = [beside / alone for beside, alone in zip(found[name], found["alone"], strict=True)]
    return round(statistics.median(ratios) - 1, 4)


def _order(folder: Path, texts: list[str], options: argparse.Namespace) -> Order:
    text = folder / "training.jsonl"
    lines = [json.dumps({"text": each, "label": "ab"[place % 2]}) for place, each in enumerate(texts)]
    text.write_text("\n".join(lines))
    config = TrainConfig(epochs=_EPOCHS, patience=_EPOCHS)
    plan = TrainingPlan(TaskKind.CLASSIFICATION, FileFormat.JSONL, None, config)
    return Order(
        base=str(folder / _BASE),
        delta=None,
        training=str(text),
        validation=None,
        plan=plan.to_json(),
        folder=str(folder),
        threads=torch.get_num_threads(),
        device="cuda:0" if options.device.startswith("cuda") else "cpu",
        dtype=options.dtype,
    )


def _time(engine: Engine, items: list[Item]) -> float:
    begin = time.perf_counter()
    for outcome in engine.submit(items).result():
        if outcome.error is not None:
            raise outcome.error
    return time.perf_counter() - begin


def _steps_alone(order: Order, engine: Engine) -> float:
    with _Training(order, 1.0, engine.busy) as training:
        begun, at = training.steps, time.perf_counter()
        time.sleep(_IDLE_SECONDS)
        return (training.steps - begun) / (time.perf_counter() - at)


class _Training:
    """A training beside whatever the block does, from its first step on."""

    def __init__(self, order: Order, share: float, busy: Callable[[], bool]) -> None:
        self.steps = 0
        self._order = order
        self._begun, self._ended = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._pace = Pace(share, busy, self._check)
        self._thread = threading.Thread(target=self._run, name="training")

    def __enter__(self) -> _Training:
        self._thread.start()
        if not self._begun.wait(_BEGIN_SECONDS):
            raise RuntimeError("the training does not begin")
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _check(self) -> None:
        if self._ended.is_set():
            raise Cancelled("the job is over")

    def _run(self) -> None:
        # One that goes on where the last one stopped would end before its time.
        for path in Path(self._order.folder).glob("checkpoint*"):
            path.unlink()
        try:
            with TrainingProcess(self._order) as process:
                while True:
                    said = process.hear(0.5)
                    self._check()
                    if isinstance(said, Step):
                        if said.progress is not None:
                            self.steps += 1
                            self._begun.set()
                        self._pace.after(said.cost_seconds)
                        process.go_on()
                    elif said is not None:
                        raise RuntimeError(f"the training was over before the job: {said}")
        except Cancelled:
            return
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            self._failure = error
            self._begun.set()


if __name__ == "__main__":
    main()
