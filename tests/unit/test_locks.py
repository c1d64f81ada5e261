"""A fair semaphore serves in order of arrival."""

from __future__ import annotations

import functools
import threading

from hmi.locks import FairSemaphore
from tests.waiting import wait_until


def _has_waiting(semaphore: FairSemaphore, count: int) -> bool:
    return len(semaphore._waiting) == count


def test_waiting_threads_come_first_when_a_loop_acquires_again_at_once() -> None:
    semaphore = FairSemaphore()
    taken: list[str] = []
    first_holds, others_wait = threading.Event(), threading.Event()

    def repeat() -> None:
        for _ in range(3):
            with semaphore.acquire():
                taken.append("loop")
                first_holds.set()
                others_wait.wait(20)

    def once(name: str) -> None:
        with semaphore.acquire():
            taken.append(name)

    loop = threading.Thread(target=repeat)
    loop.start()
    assert first_holds.wait(20)
    others = [threading.Thread(target=once, args=(name,)) for name in ("a", "b")]
    for position, other in enumerate(others):
        other.start()
        wait_until(functools.partial(_has_waiting, semaphore, position + 1))
    others_wait.set()
    for thread in (loop, *others):
        thread.join(20)
    assert taken == ["loop", "a", "b", "loop", "loop"]


def test_the_place_is_free_again_when_a_block_raises() -> None:
    semaphore = FairSemaphore()
    for _ in range(2):
        try:
            with semaphore.acquire():
                raise MemoryError
        except MemoryError:
            pass
    assert (len(semaphore._waiting), semaphore._places) == (0, 1)


def test_as_many_hold_it_as_there_are_places() -> None:
    semaphore = FairSemaphore(2)
    inside, leave = threading.Barrier(3), threading.Event()

    def stay() -> None:
        with semaphore.acquire():
            inside.wait(20)
            leave.wait(20)

    threads = [threading.Thread(target=stay) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(20)
    entered = threading.Event()

    def enter() -> None:
        with semaphore.acquire():
            entered.set()

    third = threading.Thread(target=enter)
    third.start()
    wait_until(functools.partial(_has_waiting, semaphore, 1))
    assert not entered.is_set()
    leave.set()
    for thread in (*threads, third):
        thread.join(20)
    assert entered.is_set()
