"""From a claimed shard's lines to its output and error files."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import IO

import structlog

from hmi.catalog import ClaimedShard, ServedModel, ShardResult, batches, models
from hmi.errors import Cancelled, Corrupt, HmiError, InvalidInput, NotFound, StorageFull, Transient
from hmi.items import Item, ModelRef, Outcome
from hmi.jobs import Weight, error_line, http_status, items_of, line_ids, output_line, response_body, weigh_item
from hmi.schemas import InferenceRequest, Limits, parse_body, parse_line, read_lines
from hmi.spec import MissPolicy
from hmi.storage import Storage
from worker.runtime import Runtime
from worker.shards.places import ShardPaths
from worker.shards.watch import Watch

__all__ = ["answer_shard"]

_log = structlog.get_logger(__name__)

# What the engine gets at once, unless a sequence alone is more. Many sequences sort into batches with little padding;
# between two submissions the shard can be stopped, and by their answers it is seen to get on: so they are such that two
# of them are as many texts of usual length as a decoder continues at once, and no more. Their outcomes are held in
# memory, of as many shards as the worker has threads.
_SUBMISSION = Weight(sequences=512, tokens=2**14 + 2**10, bytes=32 * 1024**2)
_SUBMISSIONS_AHEAD = 2

# An item that failed for one of these says nothing about its line: the whole shard runs again.
_NOT_THE_LINES_FAULT = (Transient, StorageFull, Cancelled)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that was read: either the request and the model it names, or why there is no answer."""

    number: int  # 0-based within the batch
    custom_id: str
    request: InferenceRequest | None
    model: ServedModel | None
    error: HmiError | None

    @property
    def sequences(self) -> int:
        return self.request.sequences if self.request is not None and self.model is not None else 0

    def items(self, batch_id: str) -> list[Item]:
        if self.request is None or self.model is None:
            return []
        return items_of(self.request, _ref(self.model), line_ids(batch_id, self.number))


def answer_shard(runtime: Runtime, claim: ClaimedShard, paths: ShardPaths, watch: Watch) -> ShardResult:
    """Run all lines of the shard and write one answer for each; both files are whole when this returns.

    Raises what `watch` raises; `Transient`, `StorageFull` and `Cancelled` where running it again helps.
    """
    lines, created = _read(runtime, claim)
    # What is at hand only: a new version's tables are read whole by the worker's own thread, not in a shard's time.
    runtime.source.refresh_open(runtime.engine)
    runtime.engine.prefetch({_ref(line.model) for line in lines if line.model is not None})
    with contextlib.ExitStack() as files:
        writer = _Writer(runtime.storage, paths, claim, created, files)
        for ended, outcomes in _run(runtime, _submissions(lines, claim.batch_id), watch):
            writer.write(ended, outcomes)
    return writer.result()


def _read(runtime: Runtime, claim: ClaimedShard) -> tuple[list[_Line], int]:
    """The shard's lines, and when its batch was created: a rerun dates its answers alike."""
    # The lines passed the check under whatever limits held then; they are not judged by others now.
    limits = Limits(max_line_bytes=claim.length)
    body_limits = Limits(max_inputs=runtime.settings.max_inputs_per_line)
    parsed: list[tuple[int, str, InferenceRequest | None, HmiError | None]] = []
    with runtime.storage.open(claim.input_path, claim.offset) as source:
        for index, raw in enumerate(read_lines(source, claim.length)):
            line = parse_line(raw, limits)
            try:
                request = parse_body(line.url, line.body, body_limits)
                parsed.append((claim.first_line + index, line.custom_id, request, None))
            except InvalidInput as refused:
                parsed.append((claim.first_line + index, line.custom_id, None, refused))
    if len(parsed) != claim.lines:
        raise Corrupt(f"{claim.input_path} has {len(parsed)} lines where shard {claim.shard_id} has {claim.lines}")
    with runtime.database.session(read_only=True) as session:
        found = models.resolve(session, {request.model for _, _, request, _ in parsed if request}, claim.principal)
        created = batches.get_batch(session, claim.principal.tenant_id, claim.batch_id).batch.created_at
    lines = [_with_model(number, custom_id, request, error, found) for number, custom_id, request, error in parsed]
    return lines, int(created)


def _with_model(
    number: int,
    custom_id: str,
    request: InferenceRequest | None,
    error: HmiError | None,
    found: Mapping[str, ServedModel],
) -> _Line:
    if request is None:
        return _Line(number, custom_id, None, None, error)
    model = found.get(request.model)
    if model is None:
        unknown = NotFound(f"there is no model {request.model[:200]!r}", code="model_not_found", param="model")
        return _Line(number, custom_id, request, None, unknown)
    return _Line(number, custom_id, request, model, None)


def _ref(model: ServedModel) -> ModelRef:
    return ModelRef(model.base_artifact, model.domain, model.artifact, MissPolicy(model.miss_policy), model.delta)


@dataclass(slots=True)
class _Submission:
    """What the engine gets at once.

    Attributes:
        items: In the order of the lines, of which the first and the last may have others before and after.
        ended: Lines that have none after.
    """

    items: list[Item] = field(default_factory=list)
    ended: list[_Line] = field(default_factory=list)


def _submissions(lines: Sequence[_Line], batch_id: str) -> Iterator[_Submission]:
    """All lines' items, in pieces of about `_SUBMISSION`."""
    piece, weight = _Submission(), Weight()
    for line in lines:
        for item in line.items(batch_id):
            more = weigh_item(item)
            if piece.items and not (weight + more).is_within(_SUBMISSION):
                yield piece
                piece, weight = _Submission(), Weight()
            piece.items.append(item)
            weight += more
        piece.ended.append(line)
    if piece.ended:
        yield piece


def _run(
    runtime: Runtime, submissions: Iterator[_Submission], watch: Watch
) -> Iterator[tuple[list[_Line], list[Outcome]]]:
    """The lines that ended and the outcomes of each submission in order, with a few ahead so that the engine never
    waits for us."""
    ahead: deque[tuple[list[_Line], Future[list[Outcome]]]] = deque()
    try:
        for piece in submissions:
            watch.check()
            ahead.append((piece.ended, runtime.engine.submit(piece.items, watch.answered)))
            if len(ahead) >= _SUBMISSIONS_AHEAD:
                yield _next(ahead, watch)
        while ahead:
            yield _next(ahead, watch)
    finally:
        for _, future in ahead:
            future.cancel()


def _next(ahead: deque[tuple[list[_Line], Future[list[Outcome]]]], watch: Watch) -> tuple[list[_Line], list[Outcome]]:
    """The first submission's; it stays among those ahead until they are there, to be cancelled with them."""
    ended, future = ahead[0]
    outcomes = watch.wait(future)
    ahead.popleft()
    return ended, outcomes


class _Writer:
    """Writes answers as they come; a file is made only when it has a line."""

    def __init__(
        self, storage: Storage, paths: ShardPaths, claim: ClaimedShard, created: int, files: contextlib.ExitStack
    ) -> None:
        self._storage = storage
        self._created = created
        self._paths = paths
        self._claim = claim
        self._files = files
        self._open: dict[str, IO[bytes]] = {}
        self._waiting: deque[Outcome] = deque()  # of lines that have not ended
        self._completed = self._failed = 0
        self._tokens_in = self._tokens_out = 0

    def write(self, ended: Sequence[_Line], outcomes: Sequence[Outcome]) -> None:
        """Take further outcomes, and write the answers of lines that end with them."""
        for outcome in outcomes:
            if isinstance(outcome.error, _NOT_THE_LINES_FAULT):
                raise outcome.error
        self._waiting.extend(outcomes)
        for line in ended:
            self._write_line(line, [self._waiting.popleft() for _ in range(line.sequences)])

    def _write_line(self, line: _Line, outcomes: Sequence[Outcome]) -> None:
        batch = self._claim.batch_id
        try:
            if line.error is not None:
                raise line.error
            if line.request is None:
                raise HmiError("the line holds no request")
            ids = line_ids(batch, line.number)
            body = response_body(line.request, line.request.model, outcomes, self._created, ids)
        except HmiError as error:
            answer = error_line(batch, line.number, line.custom_id, http_status(error), error)
            self._file(self._paths.error).write(answer)
            self._failed += 1
            return
        self._file(self._paths.output).write(output_line(batch, line.number, line.custom_id, body))
        self._completed += 1
        usage = body["usage"]  # a prompt counts once, whatever its choices
        self._tokens_in += int(usage["prompt_tokens"])
        self._tokens_out += int(usage.get("completion_tokens", 0))

    def _file(self, path: str) -> IO[bytes]:
        if path not in self._open:
            self._open[path] = self._files.enter_context(self._storage.create(path))
        return self._open[path]

    def result(self) -> ShardResult:
        """Raises `Corrupt` where an answer is missing."""
        if self._completed + self._failed != self._claim.lines:
            answers = self._completed + self._failed
            raise Corrupt(f"shard {self._claim.shard_id}: {answers} answers for {self._claim.lines} lines")
        return ShardResult(
            output_path=self._paths.output if self._paths.output in self._open else None,
            error_path=self._paths.error if self._paths.error in self._open else None,
            completed=self._completed,
            failed=self._failed,
            input_tokens=self._tokens_in,
            output_tokens=self._tokens_out,
        )
