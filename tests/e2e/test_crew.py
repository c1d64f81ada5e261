"""A test that waits in vain says what its processes were doing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.crew import hired


def test_logs_and_stacks_are_told_when_something_does_not_come_true(tmp_path: Path) -> None:
    with hired(tmp_path) as crew:
        crew.stub_worker("idle@here").wait_for("worker_starting")
        with pytest.raises(AssertionError) as caught:
            crew.wait_until(lambda: False, 0.5, what="the end of the world")
    told = str(caught.value)
    assert told.startswith("the end of the world did not come true within 0.5 s\n--- idle@here, running ---\n")
    assert "worker_starting" in told
    assert "Current thread" in told
    assert " in _serve\n" in told
