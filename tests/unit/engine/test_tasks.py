"""Foreign errors are translated."""

from __future__ import annotations

import logging

import pytest
import torch

from hmi.engine.tasks import to_hmi_error
from hmi.errors import NotFound, Overloaded


def test_error_of_our_own_stays_as_it_is() -> None:
    error = NotFound("no such adapter")
    assert to_hmi_error(error) is error


@pytest.mark.parametrize(
    "error", [OSError(5, "I/O error", "/srv/hmi/adapter.safetensors"), ZeroDivisionError("x"), SystemExit(3)]
)
def test_tenant_reads_the_type_alone_and_the_log_has_the_rest(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        found = [to_hmi_error(error) for _ in range(3)]
    assert {each.message for each in found} == {f"the engine failed on this input ({type(error).__name__})"}
    assert {each.code for each in found} == {"internal_error"}
    (logged,) = caplog.messages
    assert str(error) in logged


@pytest.mark.parametrize("tokens", [None, 90])
def test_out_of_device_memory_is_overloaded_and_names_no_process(tokens: int | None) -> None:
    found = to_hmi_error(torch.OutOfMemoryError("CUDA out of memory. Process 4711 has 70 GiB memory in use."), tokens)
    assert isinstance(found, Overloaded)
    assert "4711" not in found.message
    assert tokens is None or "90 tokens" in found.message
