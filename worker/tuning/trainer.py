"""`python -m worker.tuning.trainer`: the process that trains. It knows no catalog and no broker, only its order.

It takes less of the processor than whoever serves beside it, and where memory runs out it is the one to go.
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
from typing import IO

from safetensors import SafetensorError

from hmi.errors import Cancelled, HmiError, StorageFull
from hmi.process import tune_process
from hmi.spec import TaskKind
from hmi.storage import translate_full_disk
from hmi.training.data import AnyExample, FileFormat, LabelledLimits, read_labelled
from worker.lifecycle import describe
from worker.tuning.places import CHECKPOINT, REPORT
from worker.tuning.wire import GO, Done, Failed, Order, Said, Step, encode, read_order

__all__ = ["main"]

# Of two that want one core, one with this niceness gets a tenth of it (kernel/sched/core.c), near the default of
# `training_share`. With more, a training would hardly get on where jobs never cease.
_NICENESS = 10
# A Ctrl-C, a terminal that is closed, the end of a service: whoever tells a whole group of processes means the worker,
# and the worker stops this one by ending its input, so that a checkpoint is written.
_NOT_FOR_US = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FIRST_TO_GO = "500"  # of 1,000, added to what memory it takes
_UNLIMITED = LabelledLimits(max_line_bytes=2**40, max_examples=2**40, max_labels=2**40)
_BREATH_SECONDS = 0.1  # of work between two looks whether others want the device


class _Link:
    """The worker's end of the line. A step is told, and ends when the worker says so."""

    def __init__(self, source: IO[bytes], target: IO[bytes]) -> None:
        self._source = source
        self._target = target
        self._used: Callable[[], float] = time.process_time
        self._at = 0.0  # what was used when the last step ended

    def measure(self, order: Order) -> None:
        """Count what steps cost. On a CPU the time that its cores worked, shared out over all of them, from this
        process's start: what it waited for others to use is no cost to them. On another device, time by the clock."""
        if order.device == "cpu":
            self._used = lambda: time.process_time() / order.threads
        else:
            self._used, self._at = time.perf_counter, time.perf_counter()

    def read_order(self) -> Order:
        return read_order(self._source.readline())

    def say(self, message: Said) -> None:
        self._target.write(encode(message))
        self._target.flush()

    def step(self, progress: dict[str, object] | None = None) -> None:
        """Raises `Cancelled` where the worker wants no more."""
        self.say(Step(self._used() - self._at, progress))
        if self._source.readline() != GO:
            raise Cancelled("the training was stopped")
        self._at = self._used()

    def breathe(self) -> None:
        """A piece of work is done that is none of the optimiser's steps."""
        if self._used() - self._at >= _BREATH_SECONDS:
            self.step()


def main() -> int:
    # Whatever else writes to standard output must not end up between the messages.
    link = _Link(sys.stdin.buffer, os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    faulthandler.enable()
    for each in _NOT_FOR_US:
        signal.signal(each, signal.SIG_IGN)
    _step_back()
    order = link.read_order()
    link.measure(order)
    try:
        _train(order, link)
        link.say(Done())
    except BrokenPipeError:
        return 1
    except BaseException as error:  # noqa: BLE001 - the worker is told, whatever it is
        failure = error if isinstance(error, HmiError) else HmiError(describe(error), code="training_error")
        with contextlib.suppress(BrokenPipeError):
            link.say(Failed.of(failure))
        return 1
    return 0


def _step_back() -> None:
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)


def _train(order: Order, link: _Link) -> None:
    tune_process(os.environ)
    # Only now may anything import torch.
    import torch  # noqa: PLC0415

    from hmi.adapters.formats import FILE_NAME, load_adapter, save_adapter  # noqa: PLC0415
    from hmi.training.adapter import train_adapter  # noqa: PLC0415
    from hmi.training.plan import TrainingPlan  # noqa: PLC0415
    from hmi.training.reports import TrainProgress  # noqa: PLC0415

    torch.set_num_threads(order.threads)
    plan = TrainingPlan.from_json(order.plan)
    folder = Path(order.folder)

    def tell(progress: TrainProgress) -> None:
        link.step(dataclasses.asdict(progress))

    with translate_full_disk(order.folder), _translate_full_file(order.folder):
        trained = train_adapter(
            Path(order.base),
            _examples(order.training, plan.training_form, plan.task),
            dataclasses.replace(plan.config, device=order.device, dtype=order.dtype),
            _examples(order.validation, plan.validation_form, plan.task) if order.validation else (),
            delta=load_adapter(Path(order.delta)) if order.delta else None,
            start=load_adapter(Path(order.start)) if order.start else None,
            on_progress=tell,
            yield_hook=link.breathe,
            checkpoint=folder / CHECKPOINT,
        )
        save_adapter(trained.adapter, folder / FILE_NAME)
        (folder / REPORT).write_text(json.dumps(trained.report.to_json(), ensure_ascii=False))


@contextlib.contextmanager
def _translate_full_file(folder: str) -> Iterator[None]:
    """As `translate_full_disk`, for a library that has errors of its own and names the system's in their text."""
    try:
        yield
    except SafetensorError as error:
        if os.strerror(errno.ENOSPC) in str(error):
            raise StorageFull(f"no room left to write {folder}") from error
        raise


def _examples(path: str, form: FileFormat | None, task: TaskKind) -> tuple[AnyExample, ...]:
    """They were judged when the job was made, under whatever limits held then, and are not judged by others now."""
    with Path(path).open("rb") as stream:
        return read_labelled(stream, form or FileFormat.JSONL, kind=task, judging=True, limits=_UNLIMITED).examples


if __name__ == "__main__":
    sys.exit(main())
