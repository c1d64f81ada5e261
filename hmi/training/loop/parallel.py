"""Several small trainings in parallel, one on each core.

A small model keeps one core busy and a second one waiting at every operation, so that on a CPU two trainings take about
as long as one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

from hmi.errors import Cancelled

_T = TypeVar("_T")
_R = TypeVar("_R")


def run_parallel(
    work: Callable[[_T, Callable[[], None]], _R], items: Sequence[_T], *, most: int | None = None
) -> Generator[tuple[_T, _R], None, None]:
    """Yield each item with its result, as it is done. The first error ends all the work and is raised.

    `work` receives an item and a function to call often, which raises `Cancelled` after the work was ended. `most`
    limits the threads, by default to one for each core that this process may use.
    """
    workers = min(most or len(os.sched_getaffinity(0)), len(items))
    threads = torch.get_num_threads()
    # Read by each new thread when it first computes.
    torch.set_num_threads(max(1, threads // max(1, workers)))
    cancelled = threading.Event()

    def check() -> None:
        if cancelled.is_set():
            raise Cancelled("another training failed, or all were stopped")

    try:
        with ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="hmi-training") as pool:
            futures: dict[Future[_R], _T] = {pool.submit(work, item, check): item for item in items}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                cancelled.set()
                pool.shutdown(wait=False, cancel_futures=True)
    finally:
        torch.set_num_threads(threads)
