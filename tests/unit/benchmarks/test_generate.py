"""The benchmark of generation runs whole, and all engines with the tenants' adapters generate the same."""

from __future__ import annotations

import json

import pytest

from benchmarks import generate


def test_report_has_its_keys_when_everything_is_small(capsys: pytest.CaptureFixture[str]) -> None:
    generate.main(["--quick", "--json", "--device", "cpu", "--dtype", "float32"])
    report = json.loads(capsys.readouterr().out)
    assert {"ratio_vs_per_tenant", "ratio_vs_base", "ratio_vs_peft"} <= report.keys()
    assert set(report["tokens_s"]) == {"hmi", "per_tenant", "base", "peft"}
    assert report["tokens_as_per_tenant"] == {"hmi": 1, "peft": 1}
    assert report["ratio_vs_peft"] == pytest.approx(report["tokens_s"]["hmi"] / report["tokens_s"]["peft"], rel=0.01)
