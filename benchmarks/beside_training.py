"""What a fine-tuning job costs a batch job that runs beside it, and how many steps it does meanwhile.

    python -m benchmarks.beside_training [--quick] [--json] [--shape minilm] [--device cpu] [--dtype auto] [--rounds 9]

A base model with random weights and k = half of its layers, whose rows are all held, answers a job of texts of 8 to 64
tokens, alone and beside a training, in alternating rounds. The training is
the worker's: `worker.tuning.trainer` in a niced process of its own, which waits after every step until a `Pace` lets it
continue and so keeps to `training_share`. One process trains from the first round to the last and pauses while the job
runs alone.

- `job_s`, `job_beside_training_s`: medians of the rounds; `training_costs_job` is the median of the rounds' own ratios
  less one, since a machine that is shared may be slower in one round than in another.
- `unpaced_training_costs_job`: the same where the training is limited by its niceness alone.
- `training_took_beside_job`: of the cores' time while the paced job ran, the share that the training's process had
  (Linux). Of the figures here it is the one that holds on a machine which others use too.
- `steps_per_s_beside_job`, `steps_per_s_idle`: steps of the optimiser, of 32 texts each, that the training did beside
  the paced jobs, and that it does alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch

from benchmarks.command import make_parser
from benchmarks.harness import alternate, machine
from benchmarks.serving import seconds_of_job
from hmi.bench import SHAPES, OneBase, make_base, make_tree, random_texts
from hmi.engine import Engine, EngineConfig
from hmi.errors import Cancelled
from hmi.items import Item, ModelRef, Task
from hmi.settings import Settings
from hmi.spec import TaskKind
from hmi.training.data import FileFormat
from hmi.training.plan import TrainConfig, TrainingPlan
from worker.lifecycle import Pace
from worker.tuning import Order, Step, TrainingProcess

_BASE = "base"
_QUICK_ITEMS, _ITEMS = 1_000, 5_000
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
    parser = make_parser("beside_training", __doc__)
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--rounds", type=int, help="default: 9, with --quick 1")
    parser.add_argument("--items", type=int, help=f"texts of the job; default: {_ITEMS}, with --quick {_QUICK_ITEMS}")
    options = parser.parse_args(argv)
    options.items = options.items or (_QUICK_ITEMS if options.quick else _ITEMS)
    options.rounds = options.rounds or (1 if options.quick else 9)
    return options


def _run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    shape = SHAPES[options.shape]
    make_base(folder / _BASE, shape, shape.num_hidden_layers // 2)
    texts = random_texts(options.items)
    source = OneBase(_BASE, folder / _BASE, make_tree(folder / "tree", folder / _BASE, texts))
    share = Settings.model_fields["training_share"].default
    order = _order(folder, texts[:_EXAMPLES], options)
    config = EngineConfig(device=options.device, dtype=options.dtype)
    with Engine(config, source) as engine, _Training(order, engine.busy) as training:
        items = [Item(ModelRef(_BASE, "general", None), Task.EMBED, text=text) for text in texts]
        engine.submit(items).result()  # uncounted: everything is loaded and prepared
        beside = _Beside(training, partial(seconds_of_job, engine, items))
        runs: dict[str, Callable[[], float]] = {
            "alone": partial(seconds_of_job, engine, items),
            "paced": partial(beside.run, share),
            "unpaced": partial(beside.run, 1.0),
        }
        found = alternate(runs, options.rounds)
        idle = _steps_alone(training)
        stats = engine.stats()
    return {
        "training_costs_job": _cost(found, "paced"),
        "unpaced_training_costs_job": _cost(found, "unpaced"),
        "training_took_beside_job": round(beside.worked[share] / beside.seconds[share] / order.threads, 4),
        "training_share": share,
        "job_s": round(statistics.median(found["alone"]), 3),
        "job_beside_training_s": round(statistics.median(found["paced"]), 3),
        "steps_per_s_beside_job": round(beside.steps[share] / beside.seconds[share], 3),
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
        start=None,
        training=str(text),
        validation=None,
        plan=plan.to_json(),
        folder=str(folder),
        threads=torch.get_num_threads(),
        device="cuda:0" if options.device.startswith("cuda") else "cpu",
        dtype=options.dtype,
    )


def _steps_alone(training: _Training) -> float:
    with training.going(1.0):
        begun, at = training.steps, time.perf_counter()
        time.sleep(_IDLE_SECONDS)
        return (training.steps - begun) / (time.perf_counter() - at)


class _Beside:
    """Jobs beside the training; for each share of its, in all rounds: seconds, and what the training did in them."""

    def __init__(self, training: _Training, job: Callable[[], float]) -> None:
        self.seconds: defaultdict[float, float] = defaultdict(float)
        self.steps: defaultdict[float, float] = defaultdict(float)
        self.worked: defaultdict[float, float] = defaultdict(float)
        self._training = training
        self._job = job

    def run(self, share: float) -> float:
        steps, worked = self._training.steps, self._training.worked_seconds()
        with self._training.going(share):
            seconds = self._job()
        self.seconds[share] += seconds
        self.steps[share] += self._training.steps - steps
        self.worked[share] += self._training.worked_seconds() - worked
        return seconds


class _Training:
    """A training that is paused outside of `going` blocks."""

    def __init__(self, order: Order, busy: Callable[[], bool]) -> None:
        self.steps = 0
        self._order = order
        self._busy = busy
        self._pid = 0
        self._ready, self._going, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._pace = Pace(1.0, busy, self._check)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="training")

    def __enter__(self) -> Self:
        self._going.set()
        self._thread.start()
        if not self._ready.wait(_BEGIN_SECONDS) or self._failure is not None:
            self.__exit__()
            raise RuntimeError("the training does not begin")
        self._going.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._going.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    @contextlib.contextmanager
    def going(self, share: float) -> Iterator[None]:
        """Let the training run until the block ends."""
        self._pace = Pace(share, self._busy, self._check)
        self._going.set()
        try:
            yield
        finally:
            self._going.clear()

    def worked_seconds(self) -> float:
        """Of all cores, since its start."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # utime and stime, proc(5)

    def _check(self) -> None:
        if self._ended.is_set():
            raise Cancelled("the jobs are over")

    def _run(self) -> None:
        try:
            with TrainingProcess(self._order) as process:
                self._pid = process.pid
                while True:
                    said = process.receive(0.5)
                    self._check()
                    if isinstance(said, Step):
                        self._answer(process, said)
                    elif said is not None:
                        raise RuntimeError(f"the training was over before the jobs: {said}")
        except Cancelled:
            return
        except BaseException as error:  # noqa: BLE001 - raised where the block ends
            self._failure = error
        finally:
            self._ready.set()

    def _answer(self, process: TrainingProcess, step: Step) -> None:
        if step.progress is not None:
            self.steps += 1
            self._ready.set()
        self._going.wait()
        self._pace.after(step.cost_seconds)
        process.resume()


if __name__ == "__main__":
    main()
