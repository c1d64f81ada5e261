from __future__ import annotations

import functools
import threading

from hmi.locks import FairSemaphore
from tests.waiting import wait_until


def test_turns_go_round_when_one_thread_asks_again_at_once() -> None:
    turns = FairSemaphore()
    taken: list[str] = []
    first_holds, others_wait = threading.Event(), threading.Event()

    def again_and_again() -> None:
        for _ in range(3):
            with turns.acquire():
                taken.append("loop")
                first_holds.set()
                others_wait.wait(20)

    def once(name: str) -> None:
        with turns.acquire():
            taken.append(name)

    loop = threading.Thread(target=again_and_again)
    loop.start()
    assert first_holds.wait(20)
    others = [threading.Thread(target=once, args=(name,)) for name in ("a", "b")]
    for position, other in enumerate(others):
        other.start()
        wait_until(functools.partial(_have_come, turns, position + 1))
    others_wait.set()
    for thread in (loop, *others):
        thread.join(20)
    assert taken == ["loop", "a", "b", "loop", "loop"]


def _have_come(turns: FairSemaphore, count: int) -> bool:
    return len(turns._waiting) == count


def test_the_next_has_its_turn_when_a_block_raises() -> None:
    turns = FairSemaphore()
    for _ in range(2):
        try:
            with turns.acquire():
                raise MemoryError
        except MemoryError:
            pass
    assert (len(turns._waiting), turns._places) == (0, 1)


def test_as_many_have_a_turn_as_there_are_places() -> None:
    turns = FairSemaphore(2)
    inside, leave = threading.Barrier(3), threading.Event()

    def stay() -> None:
        with turns.acquire():
            inside.wait(20)
            leave.wait(20)

    threads = [threading.Thread(target=stay) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(20)
    entered = threading.Event()

    def come_third() -> None:
        with turns.acquire():
            entered.set()

    third = threading.Thread(target=come_third)
    third.start()
    wait_until(functools.partial(_have_come, turns, 1))
    assert not entered.is_set()
    leave.set()
    for thread in (*threads, third):
        thread.join(20)
    assert entered.is_set()
