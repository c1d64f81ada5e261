"""Validates a batch's input file in one pass, and cuts it into shards.

A line without a usable `custom_id` or with the wrong `url` fails the whole batch, and the problems name the lines. A
fault inside a body becomes that line's own error line, so that one bad request does not hold up the rest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import IO

from hmi.catalog import InputProblem, LineRange
from hmi.errors import InvalidInput
from hmi.jobs.weight import Weight, weigh_line
from hmi.jsonlines import read_bounded
from hmi.schemas import Limits, parse_line

MAX_PROBLEMS = 100  # the reading stops there
# The largest shard, unless one line alone is larger. A shard is held in memory, and an interrupted one begins anew.
# The tokens are 256 answers of usual length and their prompts, 1,000 seconds at 150 tokens a second.
SHARD = Weight(sequences=4096, tokens=150_000, bytes=16 * 1024**2)


@dataclass(frozen=True, slots=True)
class CheckedInput:
    total_lines: int
    shards: tuple[LineRange, ...]  # all lines without a gap; empty where there are problems
    problems: tuple[InputProblem, ...]


def check_input(stream: IO[bytes], *, endpoint: str, limits: Limits, shard_lines: int) -> CheckedInput:
    """Check a file, holding one line at a time. A shard ends after `shard_lines` lines, or at `SHARD`."""
    reader = _Reader(endpoint, limits, shard_lines)
    for raw, skipped in read_bounded(stream, limits.max_line_bytes):
        reader.take(raw, skipped)
        if reader.is_done:
            break
    return reader.result()


@dataclass(slots=True)
class _Reader:
    endpoint: str
    limits: Limits
    shard_lines: int
    shards: list[LineRange] = field(default_factory=list)
    problems: list[InputProblem] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)  # digests: 50,000 ids of 512 characters would be 100 MB
    number: int = 0  # of the line in the file, blank ones counted; 0-based
    lines: int = 0
    position: int = 0
    blanks: int = 0  # lines just before this one
    weight: Weight = field(default_factory=Weight)  # of the last shard

    @property
    def is_done(self) -> bool:
        return len(self.problems) >= MAX_PROBLEMS or self.lines > self.limits.max_lines

    def take(self, raw: bytes, skipped: int) -> None:
        if not skipped and not raw.strip():
            # Editors write blank lines at the end; one before a request is a damaged file.
            self.blanks += 1
        else:
            if self.blanks:
                self._add_problem(
                    InvalidInput("the line is blank", code="invalid_json_line"), self.number - self.blanks
                )
                self.blanks = 0
            self._take_request(raw, len(raw) + skipped, is_whole=not skipped)
        self.number += 1

    def _take_request(self, raw: bytes, length: int, *, is_whole: bool) -> None:
        weight = Weight(1, 0, length)
        if is_whole:
            weight = self._check(raw)
        else:
            found = f"the line is {length} bytes long; at most {self.limits.max_line_bytes} are allowed"
            self._add_problem(InvalidInput(found, code="line_too_long"), self.number)
        self._cut(length, weight)
        self.lines += 1
        self.position += length

    def _check(self, raw: bytes) -> Weight:
        try:
            line = parse_line(raw, self.limits)
            digest = hashlib.blake2b(line.custom_id.encode(), digest_size=16).digest()
            if digest in self.seen:
                message = f"custom_id {line.custom_id[:80]!r} was used on an earlier line"
                raise InvalidInput(message, code="duplicate_custom_id", param="custom_id")
            self.seen.add(digest)
            if line.url != self.endpoint:
                message = f"url is {line.url[:80]!r}, but the batch's endpoint is {self.endpoint}"
                raise InvalidInput(message, code="mismatched_url", param="url")
            return weigh_line(line, len(raw))
        except InvalidInput as error:
            self._add_problem(error, self.number)
            return Weight(1, 0, len(raw))

    def _add_problem(self, error: InvalidInput, line: int) -> None:
        self.problems.append(InputProblem(error.code, line + 1, error.message, error.param))

    def _cut(self, length: int, weight: Weight) -> None:
        last = self.shards[-1] if self.shards else None
        if last is None or last.lines >= self.shard_lines or not (self.weight + weight).is_within(SHARD):
            self.shards.append(LineRange(self.lines, 1, self.position, length, weight.cost))
            self.weight = weight
        else:
            cost = last.cost + weight.cost
            self.shards[-1] = LineRange(last.first_line, last.lines + 1, last.offset, last.length + length, cost)
            self.weight += weight

    def result(self) -> CheckedInput:
        if not self.lines and not self.problems:
            self.problems.append(InputProblem("empty_file", None, "the input file holds no requests"))
        if self.lines > self.limits.max_lines:
            message = f"the input file holds more than {self.limits.max_lines} requests"
            self.problems.append(InputProblem("too_many_requests_in_file", None, message))
        shards = () if self.problems else tuple(self.shards)
        return CheckedInput(self.lines, shards, tuple(self.problems[-MAX_PROBLEMS:]))
