"""Parallel trainings: all their results, and one that fails ends the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from hmi.errors import Cancelled
from hmi.training.loop import run_parallel


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_threads_are_shared_when_several_trainings_run(four_threads: None) -> None:
    both = threading.Barrier(2, timeout=20)

    def work(item: int, check: Callable[[], None]) -> tuple[int, int]:
        both.wait()  # breaks unless two run at a time
        return item * item, torch.get_num_threads()

    assert dict(run_parallel(work, [1, 2, 3, 4], most=2)) == {1: (1, 2), 2: (4, 2), 3: (9, 2), 4: (16, 2)}
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("stopper", ["failure", "consumer"])
def test_other_trainings_end_when_one_fails_or_the_consumer_stops(stopper: str, four_threads: None) -> None:
    ended: list[str] = []
    running = threading.Event()

    def work(item: str, check: Callable[[], None]) -> str:
        if item == "long":
            running.set()
            try:
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:
                    check()
            except Cancelled:
                ended.append(item)
                raise
        running.wait(20)
        if stopper == "failure":
            raise ValueError("broken")
        return item

    results = run_parallel(work, ["long", "short", "never", "never"], most=2)
    if stopper == "failure":
        with pytest.raises(ValueError, match="broken"):
            list(results)
    else:
        assert next(results) == ("short", "short")
        results.close()
    assert ended == ["long"]
    assert torch.get_num_threads() == 4
