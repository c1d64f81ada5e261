from __future__ import annotations

import os
import signal
import threading

import pytest

from hmi.cli.local.signals import ending_signals_leave_the_block, signals_hurry


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_block_is_left_with_the_shells_status_when_a_signal_ends_it(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as caught, ending_signals_leave_the_block():
        signal.raise_signal(number)
    assert caught.value.code == 128 + number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopping_kills_at_once_when_a_signal_comes(number: signal.Signals) -> None:
    hurried = threading.Event()
    with signals_hurry(hurried.set):
        os.kill(os.getpid(), number)
        assert hurried.wait(5)


def test_nothing_changes_when_not_in_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def enter() -> None:
        with ending_signals_leave_the_block():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
