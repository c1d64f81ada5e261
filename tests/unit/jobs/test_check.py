from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.jobs import CheckedInput, check, check_input
from hmi.schemas import Limits

URL = "/v1/classify"


def line(custom_id: object, url: str = URL, pad: int = 0) -> bytes:
    body = {"model": "m", "input": "x" * pad}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}).encode()


def run(data: bytes, *, shard_lines: int = 2, max_lines: int = 100, max_line_bytes: int = 400) -> CheckedInput:
    limits = Limits(max_line_bytes=max_line_bytes, max_lines=max_lines)
    return check_input(io.BytesIO(data), endpoint=URL, limits=limits, shard_lines=shard_lines)


def codes(checked: CheckedInput) -> list[tuple[str, int | None]]:
    return [(problem.code, problem.line) for problem in checked.problems]


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=20),
    st.integers(1, 7),
    st.sampled_from([b"", b"\n", b"\n\n \n"]),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_shards_cover_every_line_once_in_order(pads: Sequence[int], shard_lines: int, end: bytes, feed: bytes) -> None:
    lines = [line(f"id-{index}", pad=pad) for index, pad in enumerate(pads)]
    data = feed.join(lines) + end
    checked = run(data, shard_lines=shard_lines)
    assert not checked.problems
    assert checked.total_lines == len(lines) == sum(shard.lines for shard in checked.shards)
    found: list[bytes] = []
    for shard in checked.shards:
        assert shard.first_line == len(found)
        assert 1 <= shard.lines <= shard_lines
        part = data[shard.offset : shard.offset + shard.length]
        found += [each for each in part.splitlines() if each.strip()]
    assert found == lines


def test_a_shard_ends_when_its_bytes_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "SHARD", dataclasses.replace(check.SHARD, bytes=400))
    checked = run(b"\n".join(line(str(index), pad=60) for index in range(4)), shard_lines=100)
    assert [shard.lines for shard in checked.shards] == [2, 2]


def test_a_shard_ends_when_its_inputs_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "SHARD", dataclasses.replace(check.SHARD, sequences=4))
    inputs: list[object] = ["x", ["x", "y"], ["x", "y"], [1, 2, 3, 4, 5, 6], [[1], [2], [3]], ["x"] * 9, None, []]
    lines = [
        json.dumps({"custom_id": str(index), "method": "POST", "url": URL, "body": {"model": "m", "input": each}})
        for index, each in enumerate(inputs)
    ]
    checked = run("\n".join(lines).encode(), shard_lines=100)
    assert [shard.lines for shard in checked.shards] == [2, 2, 1, 1, 2]


def test_a_shard_ends_when_its_generated_texts_are_many() -> None:
    url = "/v1/chat/completions"
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 128, "max_completion_tokens": 200}
    lines = [
        json.dumps({"custom_id": str(number), "method": "POST", "url": url, "body": body}).encode()
        for number in range(12)
    ]
    checked = check_input(io.BytesIO(b"\n".join(lines)), endpoint=url, limits=Limits(), shard_lines=256)
    assert [shard.lines for shard in checked.shards] == [5, 5, 2]  # a line of 128 * 200 tokens and little more


def test_problems_name_their_lines_and_nothing_is_run() -> None:
    data = b"\n".join([line("a"), b"nonsense", line("a"), line("b", url="/v1/embeddings"), b"", line("c"), line(7)])
    checked = run(data)
    assert codes(checked) == [
        ("invalid_json_line", 2),
        ("duplicate_custom_id", 3),
        ("mismatched_url", 4),
        ("invalid_json_line", 5),
        ("invalid_value", 7),
    ]
    assert checked.shards == ()


def test_a_body_that_is_wrong_inside_is_left_to_its_own_error_line() -> None:
    raw = json.dumps({"custom_id": "a", "method": "POST", "url": URL, "body": {"input": 7, "what": []}})
    assert run(raw.encode()).problems == ()


@pytest.mark.parametrize("data", [b"", b"\n", b" \n\n"])
def test_an_empty_file_is_one_problem(data: bytes) -> None:
    assert codes(run(data)) == [("empty_file", None)]


def test_a_line_that_is_too_long_is_passed_over_without_being_kept() -> None:
    checked = run(line("a", pad=5000) + b"\n" + line("b") + b"\n" + line("c", pad=10_000))
    assert codes(checked) == [("line_too_long", 1), ("line_too_long", 3)]


def test_a_line_as_long_as_the_limit_passes_with_any_line_end() -> None:
    raw = line("a")
    for end in (b"", b"\n", b"\r\n"):
        assert not run(raw + end, max_line_bytes=len(raw)).problems
        assert codes(run(raw + end, max_line_bytes=len(raw) - 1)) == [("line_too_long", 1)]


def test_too_many_lines_are_refused_without_reading_on() -> None:
    stream = io.BytesIO(b"\n".join(line(str(index)) for index in range(1000)))
    checked = check_input(stream, endpoint=URL, limits=Limits(max_lines=10), shard_lines=5)
    assert codes(checked) == [("too_many_requests_in_file", None)]
    assert checked.total_lines == 11


def test_problems_are_counted_to_a_hundred() -> None:
    checked = run(b"x\n" * 500, max_lines=1000)
    assert len(checked.problems) == 100
    assert checked.problems[-1].line == 100


def test_a_shard_costs_what_its_lines_do() -> None:
    data = b"\n".join(line(str(index), pad=pad) for index, pad in enumerate((10, 250, 10)))
    checked = run(data)
    assert [shard.cost for shard in checked.shards] == [
        sum(max(1, len(raw) // 32) for raw in data[shard.offset : shard.offset + shard.length].splitlines())
        for shard in checked.shards
    ]
