from __future__ import annotations

import json
import math

import pytest

from hmi.errors import Corrupt, HmiError, InvalidInput, StorageFull
from worker.tuning import Order, Step
from worker.tuning.protocol import Done, Failed, Reply, decode, encode, read_order


@pytest.mark.parametrize(
    "message", [Step(0.5), Step(0.0, {"done": 1, "dev": None}), Done(), Failed("Corrupt", "corrupt", "why\nso", None)]
)
def test_a_message_arrives_as_it_was_sent_in_one_line(message: Reply) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode(line) == message


def test_an_order_arrives_as_it_was_sent() -> None:
    order = Order("base", None, "start", "training", None, {"task": "classification"}, "folder", 2, "cpu", "auto")
    assert read_order(encode(order)) == order


def test_a_number_that_json_cannot_hold_becomes_null() -> None:
    line = encode(Step(1.0, {"loss": math.nan, "dev": {"values": {"f1": math.inf}}}))
    assert decode(line) == Step(1.0, {"loss": None, "dev": {"values": {"f1": None}}})
    json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    "line", [b"", b"nonsense\n", b"[]\n", b'{"kind": "order"}\n', b'{"kind": "step", "cost_seconds": 1, "more": 1}\n']
)
def test_a_line_that_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a message"):
        decode(line)


@pytest.mark.parametrize(
    "error", [InvalidInput("a", param="p"), Corrupt("b"), StorageFull("c"), HmiError("d", code="e")]
)
def test_an_error_arrives_with_its_class_and_fields(error: HmiError) -> None:
    found = Failed.of(error).error()
    assert (type(found), found.message, found.code, found.param) == (
        type(error),
        error.message,
        error.code,
        error.param,
    )


@pytest.mark.parametrize("kind", ["KeyError", "annotations", "__name__", "Nothing"])
def test_an_unknown_error_class_becomes_a_plain_error(kind: str) -> None:
    assert type(Failed(kind, "c", "m", None).error()) is HmiError
