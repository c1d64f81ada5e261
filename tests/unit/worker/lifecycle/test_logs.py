from __future__ import annotations

import pytest

from hmi.errors import NotFound
from worker.lifecycle import describe


def test_text_is_not_logged_when_a_foreign_error_quotes_it() -> None:
    with pytest.raises(ValueError, match="secret") as raised:
        int("secret text")
    described = describe(raised.value)
    assert described.startswith("ValueError at test_logs.py:")
    assert "secret" not in described


def test_own_errors_are_described_by_code_and_message() -> None:
    assert describe(NotFound("there is no artifact abc")) == "not_found: there is no artifact abc"


def test_error_that_was_never_raised_has_its_name() -> None:
    assert describe(MemoryError()) == "MemoryError"
