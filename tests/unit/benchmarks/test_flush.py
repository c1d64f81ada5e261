from __future__ import annotations

import json

import pytest

from benchmarks import flush


def test_every_step_is_measured_when_it_runs_on_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flush, "_IDLE_SECONDS", 0.01)
    flush.main(["--rows", "400", "--domains", "3", "--database", "sqlite", "--json"])
    report = json.loads(capsys.readouterr().out)
    steps = report["sqlite"]
    assert [steps[name]["rows"] for name in ("first", "again", "half_life")] == [400, 400, 400]
    assert steps["trim"]["rows"] == pytest.approx(225, abs=60)
    assert steps["load"]["rows"] == 400 - steps["trim"]["rows"]
    assert all(steps[name]["longest_transaction_ms"] > 0 for name in ("first", "again", "half_life", "trim"))
    assert "rows_s" in flush._as_text(report)
