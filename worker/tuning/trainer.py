"""`python -m worker.tuning.trainer`: the training process. It knows its order, but neither catalog nor broker.

It has a lower priority on the processor than serving, and where memory runs out the kernel kills it first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import faulthandler
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from safetensors import SafetensorError

from hmi.errors import Cancelled, HmiError, StorageFull
from hmi.process import tune_process
from hmi.spec import TaskKind
from hmi.storage import translate_full_disk
from hmi.training.data import AnyExample, FileFormat, LabelledLimits, read_labelled
from worker.lifecycle import describe
from worker.paths import CHECKPOINT, REPORT
from worker.tuning.protocol import GO, Done, Failed, Order, Step, encode, read_order

if TYPE_CHECKING:
    from hmi.training.reports import TrainProgress

# Of two processes that need one core, one with this niceness gets a tenth of it (kernel/sched/core.c), near the default
# of `training_share`. With more, a training hardly progresses while jobs run all the time.
_NICENESS = 10
# Ctrl-C, a closed terminal, the end of a service: signals to the process group are for the worker, which stops this
# process by closing its input, so that a checkpoint is written.
_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OOM_SCORE = "500"  # of 1,000, added to the score of the memory that the process uses
_UNLIMITED = LabelledLimits(max_line_bytes=2**40, max_examples=2**40, max_labels=2**40)
_STEP_SECONDS = 0.1  # of work between two steps outside the optimizer


class _Link:
    """The process's end of the protocol. A step is sent, and ends with the worker's answer."""

    def __init__(self, source: IO[bytes], target: IO[bytes]) -> None:
        self._source = source
        self._target = target
        self._used: Callable[[], float] = time.process_time
        self._used_before = 0.0  # when the last step ended

    def read_order(self) -> Order:
        """Read the order, and measure the cost of steps as its device does.

        On a CPU it is the processor time divided by the threads, from the process's start, since time that it waited
        for others costs them nothing; on another device it is wall-clock time.
        """
        order = read_order(self._source.readline())
        if order.device == "cpu":
            self._used = lambda: time.process_time() / order.threads
        else:
            self._used, self._used_before = time.perf_counter, time.perf_counter()
        return order

    def send(self, message: Step | Done | Failed) -> None:
        self._target.write(encode(message))
        self._target.flush()

    def step(self, progress: TrainProgress | None = None) -> None:
        """Raises `Cancelled` if the worker stops the training."""
        self.send(Step(self._used() - self._used_before, dataclasses.asdict(progress) if progress else None))
        if self._source.readline() != GO:
            raise Cancelled("the training was stopped")
        self._used_before = self._used()

    def yield_device(self) -> None:
        """Send a step after enough work outside the optimizer."""
        if self._used() - self._used_before >= _STEP_SECONDS:
            self.step()


def main() -> int:
    # Other output of this process must not get between the messages.
    link = _Link(sys.stdin.buffer, os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    faulthandler.enable()
    for each in _IGNORED_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    order = link.read_order()
    try:
        _train(order, link)
        link.send(Done())
    except BrokenPipeError:
        return 1
    except BaseException as error:  # noqa: BLE001 - every error is reported to the worker
        failure = error if isinstance(error, HmiError) else HmiError(describe(error), code="training_error")
        with contextlib.suppress(BrokenPipeError):
            link.send(Failed.of(failure))
        return 1
    return 0


def _train(order: Order, link: _Link) -> None:
    tune_process(os.environ)
    # Torch may be imported from here on.
    import torch  # noqa: PLC0415

    from hmi.adapters.formats import FILE_NAME, load_adapter, save_adapter  # noqa: PLC0415
    from hmi.training.adapter import train_adapter  # noqa: PLC0415
    from hmi.training.plan import TrainingPlan  # noqa: PLC0415

    torch.set_num_threads(order.threads)
    plan = TrainingPlan.from_json(order.plan)
    folder = Path(order.folder)
    with translate_full_disk(order.folder), _translate_full_file(order.folder):
        trained = train_adapter(
            Path(order.base),
            _examples(order.training, plan.training_form, plan.task),
            dataclasses.replace(plan.config, device=order.device, dtype=order.dtype),
            _examples(order.validation, plan.validation_form, plan.task) if order.validation else (),
            delta=load_adapter(Path(order.delta)) if order.delta else None,
            start=load_adapter(Path(order.start)) if order.start else None,
            on_progress=link.step,
            yield_hook=link.yield_device,
            checkpoint=folder / CHECKPOINT,
        )
        save_adapter(trained.adapter, folder / FILE_NAME)
        (folder / REPORT).write_text(json.dumps(trained.report.to_json(), ensure_ascii=False))


@contextlib.contextmanager
def _translate_full_file(folder: str) -> Iterator[None]:
    """As `translate_full_disk`, for a library that puts the system's error into the text of its own."""
    try:
        yield
    except SafetensorError as error:
        if os.strerror(errno.ENOSPC) in str(error):
            raise StorageFull(f"no room left to write {folder}") from error
        raise


def _examples(path: str, form: FileFormat | None, task: TaskKind) -> tuple[AnyExample, ...]:
    """Read a file that passed the limits that applied when the job was created; today's limits do not apply."""
    with Path(path).open("rb") as stream:
        return read_labelled(stream, form or FileFormat.JSONL, kind=task, dev=True, limits=_UNLIMITED).examples


if __name__ == "__main__":
    sys.exit(main())
