"""One batch of all tenants' sentences: written, run with the `openai` client, read and compared."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import OpenAI, OpenAIError
from openai.types import Batch

from examples.demo.steps import Steps
from examples.demo.tenants import DemoTenant, Portion
from hmi.cli.render import ProgressBar
from hmi.errors import HmiError
from hmi.schemas import BatchObject

__all__ = ["Answered", "BatchRun", "Comparison", "LinesRun", "compare", "run_batch", "run_lines", "write_batch"]

_BATCH_SECONDS = 1800
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})

# Probabilities are computed in bfloat16, in other batches each time: 8 significant bits, over a few layers.
_ROUNDING = 0.03


@dataclass(frozen=True, slots=True)
class Answered:
    """`probs` are in the order of the model's labels; `tokens` counts the input."""

    label: str
    probs: tuple[float, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class BatchRun:
    """`answers` by custom_id; `seconds` from submitting to completion, as the client measures it."""

    id: str
    seconds: float
    answers: Mapping[str, Answered]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs of the same lines.

    Attributes:
        other_labels: Lines whose label changed.
        beyond_rounding: Those whose probabilities differ by more than bfloat16's rounding.
        largest_difference: Of any probability.
    """

    lines: int
    other_labels: int
    beyond_rounding: int
    largest_difference: float


def line_id(tenant: DemoTenant, number: int) -> str:
    return f"{tenant.name}-{number}"


def write_batch(path: Path, tenants: Sequence[DemoTenant], dealt: Mapping[str, Portion]) -> int:
    """Write every tenant's test sentences to one batch file, tenants in turn, and return the number of lines."""
    lines = [
        (number, tenant, sentence) for tenant in tenants for number, sentence in enumerate(dealt[tenant.name].test)
    ]
    lines.sort(key=lambda line: line[0])
    with path.open("w", encoding="utf-8") as file:
        for number, tenant, sentence in lines:
            body = {"model": tenant.model, "input": sentence.text}
            request = {
                "custom_id": line_id(tenant, number),
                "method": "POST",
                "url": "/v1/classify",
                "body": body,
            }
            file.write(json.dumps(request, ensure_ascii=False) + "\n")
    return len(lines)


@dataclass(frozen=True, slots=True)
class LinesRun:
    """`bodies` of the answers by custom_id; `seconds` from submitting to completion, as the client measures it."""

    id: str
    seconds: float
    bodies: Mapping[str, Mapping[str, Any]]


def run_batch(client: OpenAI, path: Path, steps: Steps) -> BatchRun:
    """Run a file of classifications. Raises as `run_lines`."""
    run = run_lines(client, path, "/v1/classify", steps)
    return BatchRun(run.id, run.seconds, {line: _answered(body) for line, body in run.bodies.items()})


def run_lines(client: OpenAI, path: Path, endpoint: Any, steps: Steps) -> LinesRun:
    """Upload the file, run it as a batch and read the answers.

    Args:
        endpoint: One of HMI's; the client's own type has OpenAI's endpoints alone.

    Raises `HmiError` (code `batch_failed`) unless every line was answered.
    """
    try:
        with path.open("rb") as file:
            uploaded = client.files.create(file=file, purpose="batch")
        started = time.monotonic()
        batch = client.batches.create(input_file_id=uploaded.id, endpoint=endpoint, completion_window="24h")

        def is_over() -> bool:
            nonlocal batch
            batch = client.batches.retrieve(batch.id)
            return batch.status in _ENDED

        def show(bar: ProgressBar) -> None:
            bar.show_batch(BatchObject.model_validate(batch.model_dump(mode="json")))

        steps.wait(is_over, _BATCH_SECONDS, what="batch", unit="lines", show=show)
        seconds = time.monotonic() - started
        _require_whole(client, batch)
        content = client.files.content(str(batch.output_file_id)).text
    except OpenAIError as error:
        raise HmiError(f"the API refused the batch: {error}", code="batch_failed") from error
    records = map(json.loads, content.splitlines())
    return LinesRun(batch.id, seconds, {each["custom_id"]: each["response"]["body"] for each in records})


def compare(first: BatchRun, second: BatchRun) -> Comparison:
    """Compare two runs. Raises `HmiError` (code `answers_differ`) if they answered different lines."""
    if first.answers.keys() != second.answers.keys():
        raise HmiError("the two batches did not answer the same lines", code="answers_differ")
    moved, other, beyond = 0.0, 0, 0
    for line, one in first.answers.items():
        two = second.answers[line]
        distance = max(abs(a - b) for a, b in zip(one.probs, two.probs, strict=True))
        moved = max(moved, distance)
        if one.label != two.label:
            other += 1
            beyond += distance > _ROUNDING
    return Comparison(len(first.answers), other, beyond, moved)


def _require_whole(client: OpenAI, batch: Batch) -> None:
    if batch.status == "completed" and batch.output_file_id and not batch.error_file_id:
        return
    reasons = [each.message or each.code or "" for each in (batch.errors.data or ())] if batch.errors else []
    if batch.error_file_id:
        first = json.loads(client.files.content(batch.error_file_id).text.splitlines()[0])
        error = first["error"] or first["response"]["body"]["error"]
        reasons.append(f"line {first['custom_id']}: {error['message']}")
    counts = batch.request_counts
    assert counts is not None  # noqa: S101 - HMI's batches always have them
    done = f"{counts.completed} of {counts.total} lines were answered"
    raise HmiError(f"batch {batch.id} ended as {batch.status}; {done}; {'; '.join(reasons)}", code="batch_failed")


def _answered(body: Mapping[str, Any]) -> Answered:
    first = body["data"][0]
    return Answered(first["label"], tuple(first["probs"]), int(body["usage"]["total_tokens"]))
