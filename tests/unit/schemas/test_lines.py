from __future__ import annotations

import contextlib
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.errors import InvalidInput
from hmi.schemas import Limits, parse_line, read_lines

LIMITS = Limits(max_line_bytes=10_000)


def line(**changes: object) -> bytes:
    fields = {"custom_id": "a", "method": "POST", "url": "/v1/classify", "body": {"model": "m"}} | changes
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def refusal(raw: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_line(raw, LIMITS)
    return caught.value


def test_a_line_is_read_when_it_is_whole() -> None:
    parsed = parse_line(line(custom_id="é 1") + b"\r\n", LIMITS)
    assert (parsed.custom_id, parsed.url, dict(parsed.body)) == ("é 1", "/v1/classify", {"model": "m"})


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"not json", "invalid_json_line"),
        (b'{"custom_id": "a"', "invalid_json_line"),
        (b"[1]", "invalid_json_line"),
        (b"", "invalid_json_line"),
        (b"\xff\xfe", "invalid_json_line"),
        (b"\xef\xbb\xbf" + line(), "invalid_json_line"),
        (line(body={"x": float("nan")}), "invalid_json_line"),
        (line(body={"x": float("inf")}), "invalid_json_line"),
        (b'{"body": {"x": ' + b"9" * 5000 + b"}}", "invalid_json_line"),
        (b'{"body": ' + b"[" * 4000 + b"]" * 4000 + b"}", "invalid_json_line"),
        (line(body={"x": "y" * 10_000}), "line_too_long"),
        (line(custom_id=...), "missing_required_parameter"),
        (line(method=...), "missing_required_parameter"),
        (line(url=...), "missing_required_parameter"),
        (line(body=...), "missing_required_parameter"),
        (line(custom_id=1), "invalid_value"),
        (line(custom_id=""), "invalid_value"),
        (line(custom_id="x" * 513), "invalid_value"),
        (line(custom_id="a\u0000b"), "invalid_value"),
        (line(custom_id="a\nb"), "invalid_value"),
        (line(custom_id="\ud800"), "invalid_value"),
        (line(method="GET"), "invalid_value"),
        (line(url=["/v1/classify"]), "invalid_value"),
        (line(body="text"), "invalid_value"),
        (line(metadata={}), "unknown_parameter"),
    ],
)
def test_a_line_is_refused_with_its_code_when_it_cannot_be_answered(raw: bytes, code: str) -> None:
    assert refusal(raw).code == code


def test_nesting_is_refused_when_it_exceeds_the_limit_and_only_then() -> None:
    def nested(depth: int) -> object:
        return {} if depth == 0 else [nested(depth - 1)]

    parse_line(line(body={"input": nested(29)}), LIMITS)  # the line, its body and the innermost count too
    assert refusal(line(body={"input": nested(30)})).code == "invalid_json_line"


def test_an_unknown_field_is_named_only_when_it_can_be_printed() -> None:
    assert refusal(line(extra=1)).param == "extra"
    assert refusal(line(**{"\u0000": 1})).param is None


@given(st.binary(max_size=300))
def test_any_bytes_give_a_line_or_a_refusal(raw: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        assert parse_line(raw, LIMITS).custom_id


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=20), max_size=10))
def test_lines_end_at_line_feeds_alone(texts: list[str]) -> None:
    data = "".join(f"{text}\n" for text in texts).encode()
    found = list(read_lines(io.BytesIO(data + b"beyond"), len(data)))
    assert found == [text.encode() for text in texts]
