"""From a claimed shard's lines to its output and error files."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import IO

from hmi.catalog import ClaimedShard, RegisteredModel, ShardResult, batches, models
from hmi.errors import Corrupt, HmiError, InvalidInput, NotFound
from hmi.items import Item, ModelRef, Outcome
from hmi.jobs import Weight, error_line, http_status, items_of, line_ids, output_line, response_body, weigh_item
from hmi.schemas import InferenceRequest, Limits, parse_body, parse_line, read_lines
from hmi.spec import CountPolicy, MissPolicy
from hmi.storage import Storage
from hmi.tenant_bits import bitmap_of
from worker.job_runner import NOT_THE_JOBS_FAULT
from worker.paths import ShardPaths
from worker.runtime import Runtime
from worker.shards.monitor import ShardMonitor

# The limit of one submission to the engine, unless a single sequence exceeds it. Many sequences sort into batches with
# little padding; but a shard can be stopped and monitored only between submissions, and their outcomes are held in
# memory. Two submissions are as many sequences of usual length as a decoder generates at once.
_SUBMISSION = Weight(sequences=512, tokens=2**14 + 2**10, bytes=32 * 1024**2)
_SUBMISSIONS_AHEAD = 2


@dataclass(frozen=True, slots=True)
class _Line:
    """A parsed line: either the request and its model, or the error that is its answer."""

    number: int  # 0-based within the batch
    custom_id: str
    request: InferenceRequest | None = None
    model: RegisteredModel | None = None
    error: HmiError | None = None
    requester: int | None = 0  # as in `Item`

    @property
    def sequences(self) -> int:
        return self.request.sequences if self.request is not None and self.model is not None else 0

    def items(self, batch_id: str) -> list[Item]:
        if self.request is None or self.model is None:
            return []
        return items_of(self.request, _ref(self.model), line_ids(batch_id, self.number), self.requester)


def answer_shard(runtime: Runtime, claim: ClaimedShard, paths: ShardPaths, monitor: ShardMonitor) -> ShardResult:
    """Run all lines of the shard and write one answer for each; both files are complete when this returns.

    Raises what `monitor` raises, and one of `NOT_THE_JOBS_FAULT` where another attempt may succeed.
    """
    lines, created = _read(runtime, claim)
    # Opened tables only: those of a new version are verified on the worker's own thread, not in a shard's time.
    runtime.source.refresh_open(runtime.engine)
    runtime.engine.prefetch({_ref(line.model) for line in lines if line.model is not None})
    with contextlib.ExitStack() as files:
        writer = _Writer(runtime.storage, paths, claim, created, files)
        for ended, outcomes in _run(runtime, _submissions(lines, claim.batch_id), monitor):
            writer.write(ended, outcomes)
    return writer.result()


def _read(runtime: Runtime, claim: ClaimedShard) -> tuple[list[_Line], int]:
    """Return the shard's lines, and when its batch was created: a second attempt dates its answers in the same way."""
    # The lines passed the limits that applied when they were submitted; today's limits do not apply.
    limits = Limits(max_line_bytes=claim.length)
    body_limits = Limits(max_inputs=runtime.settings.max_inputs_per_line)
    lines = list[_Line]()
    with runtime.storage.open(claim.input_path, claim.offset) as source:
        for number, raw in enumerate(read_lines(source, claim.length), start=claim.first_line):
            parsed = parse_line(raw, limits)
            line = _Line(number, parsed.custom_id)
            try:
                lines.append(replace(line, request=parse_body(parsed.url, parsed.body, body_limits)))
            except InvalidInput as refused:
                lines.append(replace(line, error=refused))
    if len(lines) != claim.lines:
        raise Corrupt(f"{claim.input_path} has {len(lines)} lines where shard {claim.shard_id} has {claim.lines}")
    with runtime.database.session(read_only=True) as session:
        found = models.resolve(session, {line.request.model for line in lines if line.request}, claim.principal)
        created = batches.get_batch(session, claim.principal.tenant_id, claim.batch_id).batch.created_at
    return [_with_model(line, found, runtime.settings.tenant_counts) for line in lines], int(created)


def _with_model(line: _Line, found: Mapping[str, RegisteredModel], default: CountPolicy) -> _Line:
    if line.request is None:
        return line
    name = line.request.model
    if name in found:
        model = found[name]
        is_counted = (model.counts or default) is CountPolicy.ALL
        return replace(line, model=model, requester=bitmap_of(model.tenant_bit) if is_counted else None)
    unknown = NotFound(f"there is no model {name[:200]!r}", code="model_not_found", param="model")
    return replace(line, error=unknown)


def _ref(model: RegisteredModel) -> ModelRef:
    return ModelRef(
        model.base_artifact, model.domain, model.artifact, MissPolicy(model.miss_policy), model.delta, model.scope
    )


@dataclass(slots=True)
class _Submission:
    """The items of one call of the engine, in the order of the lines."""

    items: list[Item] = field(default_factory=list)
    ended: list[_Line] = field(default_factory=list)  # lines whose last item is in this submission


def _submissions(lines: Sequence[_Line], batch_id: str) -> Iterator[_Submission]:
    """Split the items of all lines into submissions of up to `_SUBMISSION`."""
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
    runtime: Runtime, submissions: Iterator[_Submission], monitor: ShardMonitor
) -> Iterator[tuple[list[_Line], list[Outcome]]]:
    """Yield the ended lines and the outcomes of each submission in order; a few are ahead of the engine."""
    ahead: deque[tuple[list[_Line], Future[list[Outcome]]]] = deque()
    try:
        for piece in submissions:
            monitor.check()
            ahead.append((piece.ended, runtime.engine.submit(piece.items, monitor.on_outcome)))
            if len(ahead) >= _SUBMISSIONS_AHEAD:
                yield _next(ahead, monitor)
        while ahead:
            yield _next(ahead, monitor)
    finally:
        for _, future in ahead:
            future.cancel()


def _next(
    ahead: deque[tuple[list[_Line], Future[list[Outcome]]]], monitor: ShardMonitor
) -> tuple[list[_Line], list[Outcome]]:
    """Wait for the first submission, which stays in `ahead` until then, to be cancelled with the others."""
    ended, future = ahead[0]
    outcomes = monitor.wait(future)
    ahead.popleft()
    return ended, outcomes


class _Writer:
    """Writes answers as outcomes arrive; a file is created with its first line."""

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
        """Take further outcomes, and write the answers of the lines that end with them."""
        for outcome in outcomes:
            if isinstance(outcome.error, NOT_THE_JOBS_FAULT):
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
