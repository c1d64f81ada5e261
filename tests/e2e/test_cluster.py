"""A test that waits in vain shows what its processes were doing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.cluster import run_cluster


def test_logs_and_stacks_are_shown_when_a_condition_does_not_come_true(tmp_path: Path) -> None:
    with run_cluster(tmp_path) as cluster:
        cluster.stub_worker("idle@here").wait_for("worker_starting")
        with pytest.raises(AssertionError) as caught:
            cluster.wait_until(lambda: False, 0.5, what="the end of the world")
    message = str(caught.value)
    assert message.startswith("the end of the world did not come true within 0.5 s\n--- idle@here, running ---\n")
    assert "worker_starting" in message
    assert "Current thread" in message
    assert " in _serve\n" in message
