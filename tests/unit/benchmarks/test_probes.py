from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.probes.__main__ import _as_text, main
from benchmarks.probes.separation import Separation, auc, probes_needed


def test_times_that_differ_are_separated_and_equal_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    sooner, later = rng.normal(1, 0.1, 2_000), rng.normal(2, 0.1, 2_000)
    assert Separation.of(sooner, later) == Separation(1.0, 1)
    assert auc(later, sooner) == 0
    assert auc(np.ones(3), np.ones(4)) == 0.5
    kept, unknown = (rng.normal(mean, 1, 20_000) for mean in (0.0, 0.5))
    assert auc(kept, unknown) == pytest.approx(0.638, abs=0.01)  # of two normal distributions half a deviation apart
    needed = probes_needed(kept, unknown)
    assert needed is not None
    assert 35 <= needed <= 60  # (2 x 1.645 / 0.5)^2 = 43
    assert probes_needed(rng.normal(1, 0.1, 2_000), rng.normal(1, 0.1, 2_000)) is None


def test_kept_sentences_are_answered_sooner_on_a_tiny_model(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--probes", "90", "--batches", "3", "--jobs", "0", "--texts", "120"]
    main(["--shape", "tiny", "--device", "cpu", "--dtype", "float32", *few, "--json"])
    report = json.loads(capsys.readouterr().out)
    found = report["shapes"]["tiny"]
    for form in ("sentence", "pair"):
        assert found[form]["kept_or_unknown"]["auc"] > 0.6
        assert all(len(each) == 6 for each in found[form]["ms"].values())
    sharing = found["sharing"]
    assert sharing["shared"]["hit_rate"] >= sharing["for each tenant"]["hit_rate"] > sharing["none"]["hit_rate"] == 0
    assert "probes for 95 %" in _as_text(report)
