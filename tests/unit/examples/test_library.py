"""The library example runs as README shows it."""

from __future__ import annotations

import pytest

from examples import library


def test_two_tenants_share_one_engine(capsys: pytest.CaptureFixture[str]) -> None:
    library.main()
    lines = [line.rpartition(" ")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "acme: 'the film was great' is positive",
        "acme: 'a very poor film' is negative",
        "zeta: 'the office is a flood' is urgent",
        "zeta: 'lunch is today' is routine",
    ]
