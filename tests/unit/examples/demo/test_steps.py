"""Steps are numbered and timed, waiting ends, and an interrupt is never lost."""

from __future__ import annotations

import contextlib
import io
import signal
import threading

import pytest
from rich.console import Console

from examples.demo.steps import Interrupts, Steps
from hmi.errors import HmiError


def test_steps_are_numbered_in_the_order_of_their_ends() -> None:
    out = io.StringIO()
    steps = Steps(Console(file=out, width=30))
    with steps.step("first"):
        steps.say("a line that is longer than the terminal is wide")
    with steps.step("second"):
        pass
    lines = out.getvalue().splitlines()
    assert [line for line in lines if line[:1].isdigit()] == ["1. first", "2. second"]
    assert "   a line that is longer than the terminal is wide" in lines
    assert [each.title for each in steps.taken] == ["first", "second"]
    assert all(0 <= each.seconds < 10 for each in steps.taken)


def test_step_is_not_counted_when_it_fails() -> None:
    steps = Steps(Console(file=io.StringIO()))
    with pytest.raises(ValueError), steps.step("broken"):
        raise ValueError
    assert steps.taken == []


def test_interrupt_is_repeated_when_it_was_swallowed() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGALRM)]
    with pytest.raises(KeyboardInterrupt), Interrupts(again_seconds=0.05):
        with contextlib.suppress(KeyboardInterrupt):  # as a library does around an import of its own
            signal.raise_signal(signal.SIGINT)
        threading.Event().wait(20)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGALRM)] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_waiting_ends_when_its_time_is_up() -> None:
    with pytest.raises(HmiError, match=r"the tree took longer than 0\.1 s") as caught:
        Steps(Console(file=io.StringIO())).wait(lambda: False, 0.1, what="the tree")
    assert caught.value.code == "took_too_long"
