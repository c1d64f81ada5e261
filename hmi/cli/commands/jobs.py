"""hmi batch, hmi tune"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hmi.cli.commands.options import AsJson, Key, Url, connect, follow, print_answer
from hmi.spec import MissPolicy, TaskKind

if TYPE_CHECKING:
    from hmi.cli.client import HmiClient
    from hmi.schemas import BatchObject, JobObject

batches = typer.Typer(no_args_is_help=True, help="Batches: files of requests that workers run.")
tunings = typer.Typer(no_args_is_help=True, help="Fine-tuning jobs: workers train models on labelled text.")

_BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="From `hmi batch submit`.")]
_JobId = Annotated[str, typer.Argument(metavar="JOB", help="From `hmi tune create`.")]
_Limit = Annotated[int, typer.Option("--limit", min=1, max=100, help="How many, the newest first.")]
_Wait = Annotated[bool, typer.Option("--wait", help="Show the progress until it is over.")]


@batches.command("submit", epilog="Example: `hmi batch submit requests.jsonl --endpoint /v1/classify --wait`")
def submit_batch(
    file: Annotated[Path, typer.Argument(help="JSON lines: custom_id, method, url, body.")],
    endpoint: Annotated[str, typer.Option(help="The lines' url, such as /v1/chat/completions.")] = "/v1/classify",
    window: Annotated[str, typer.Option(help="Lines that have not run by then are given up.")] = "24h",
    wait: _Wait = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file of requests and start a batch."""
    with connect(url, key) as client:
        batch = client.create_batch(client.upload(file).id, endpoint=endpoint, window=window)
        if wait:
            batch = _follow_batch(client, batch.id)
    _print_batch(batch, as_json)


@batches.command("status", epilog="Example: `hmi batch status batch_5f...`")
def show_batch(batch_id: _BatchId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show how far a batch is. Exit status 1 if it failed."""
    with connect(url, key) as client:
        _print_batch(client.batch(batch_id), as_json)


@batches.command("watch", epilog="Example: `hmi batch watch batch_5f...`")
def watch_batch(batch_id: _BatchId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show a batch's progress until it is over."""
    with connect(url, key) as client:
        _print_batch(_follow_batch(client, batch_id), as_json)


@batches.command("list", epilog="Example: `hmi batch list --limit 5`")
def list_batches(limit: _Limit = 20, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List batches."""
    from hmi.cli.render import batch_table

    with connect(url, key) as client:
        found = client.batches(limit)
    print_answer(found, as_json, batch_table(found) if found else "no batches")


@batches.command("cancel", epilog="Example: `hmi batch cancel batch_5f...`")
def cancel_batch(batch_id: _BatchId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Stop a batch; lines that have run stay in its output."""
    with connect(url, key) as client:
        _print_batch(client.cancel_batch(batch_id), as_json)


@batches.command("output", epilog="Example: `hmi batch output batch_5f... | jq .custom_id`")
def fetch_output(
    batch_id: _BatchId,
    errors: Annotated[bool, typer.Option("--errors", help="The lines that failed, instead of those that ran.")] = False,
    out: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Fetch the answers of a batch that is over, one JSON line for each request."""
    from hmi.errors import Conflict, InvalidInput

    with connect(url, key) as client:
        batch = client.batch(batch_id)
        if not batch.is_over:
            raise Conflict(f"{batch_id} is {batch.status}; wait for it with `hmi batch watch {batch_id}`")
        file_id = batch.error_file_id if errors else batch.output_file_id
        if file_id is None:
            typer.echo(f"{batch_id} has no {'failed lines' if errors else 'answers'}", err=True)
        elif out is None:
            client.download(file_id, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            beside = out.with_name(f".{out.name}.part")  # a broken download must not look like a whole file
            try:
                with beside.open("wb") as file:
                    client.download(file_id, file)
                beside.replace(out)
            except OSError as error:
                raise InvalidInput(f"cannot write {out}: {error.strerror}") from error
            finally:
                beside.unlink(missing_ok=True)


def _follow_batch(client: HmiClient, batch_id: str) -> BatchObject:
    from hmi.cli.render import ProgressBar

    with ProgressBar("batch", "lines") as bar:
        return follow(lambda: client.batch(batch_id), lambda batch: batch.is_over, bar.show_batch)


def _print_batch(batch: BatchObject, as_json: bool) -> None:
    counts = batch.request_counts
    lines = f"{counts.completed} of {counts.total} lines done, {counts.failed} failed"
    print_answer(batch, as_json, f"{batch.id} {batch.status}: {lines}")
    for problem in batch.errors.data if batch.errors and not as_json else ():
        where = f"line {problem.line}: " if problem.line is not None else ""
        typer.echo(f"  {where}{problem.message} ({problem.code})", err=True)
    if batch.status == "failed":
        raise typer.Exit(1)


class _Kind(StrEnum):
    """As `hmi.adapters.adapter.AdapterKind`, for the same reason."""

    LORA = "lora"
    BOTTLENECK = "bottleneck"


@tunings.command(
    "create", epilog="Example: `hmi tune create reviews.jsonl --model minilm-k3 --suffix sentiment --wait`"
)
def create_tuning(
    data: Annotated[Path, typer.Argument(help="Labelled text: JSON lines, or CSV with a heading.")],
    model: Annotated[str, typer.Option(help="A base model, or a model of yours to train again.")],
    suffix: Annotated[str | None, typer.Option(help="The model's name, without the tenant's.")] = None,
    validation: Annotated[Path | None, typer.Option(help="Labelled text that every epoch is evaluated on.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Most passes over the text.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Texts in one step.")] = None,
    learning_rate_multiplier: Annotated[float | None, typer.Option(help="Factor on the usual learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Same seed, same weights.")] = None,
    task: Annotated[TaskKind | None, typer.Option(help="Default: what the file's fields say.")] = None,
    domain: Annotated[str | None, typer.Option(help="Where n-grams are looked up first.")] = None,
    start: Annotated[str | None, typer.Option(help="A model of yours to start from, such as one at k = 0.")] = None,
    kind: Annotated[_Kind | None, typer.Option(help="What is trained besides the head.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of LoRA pairs, or width of bottlenecks.")] = None,
    miss_policy: Annotated[MissPolicy | None, typer.Option(help="Compute missing rows, or estimate them.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=3, help="Longer texts are truncated in training.")] = None,
    wait: _Wait = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload labelled text and train a model on it, which is served once the job has succeeded."""
    chosen = {"n_epochs": epochs, "batch_size": batch_size, "learning_rate_multiplier": learning_rate_multiplier}
    adapter = {"start": start, "kind": kind, "rank": rank, "max_tokens": max_tokens}
    options = {"task": task, "domain": domain, "miss_policy": miss_policy} | adapter
    body: dict[str, Any] = {"model": model, "suffix": suffix, "seed": seed}
    if hyperparameters := _given(chosen):
        body["method"] = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    if given := _given(options):
        body["hmi"] = given
    with connect(url, key) as client:
        body["training_file"] = client.upload(data, purpose="fine-tune").id
        if validation is not None:
            body["validation_file"] = client.upload(validation, purpose="fine-tune").id
        job = client.create_tuning(_given(body))
        if wait:
            job = _follow_tuning(client, job.id)
    _print_job(job, as_json)


@tunings.command("show", epilog="Example: `hmi tune show ftjob-5f... --json`")
def show_tuning(job_id: _JobId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show how far a job is. Exit status 1 if it failed."""
    with connect(url, key) as client:
        _print_job(client.tuning(job_id), as_json)


@tunings.command("watch", epilog="Example: `hmi tune watch ftjob-5f...`")
def watch_tuning(job_id: _JobId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show a job's progress until it is over."""
    with connect(url, key) as client:
        _print_job(_follow_tuning(client, job_id), as_json)


@tunings.command("list", epilog="Example: `hmi tune list --limit 5`")
def list_tunings(limit: _Limit = 20, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List jobs."""
    from hmi.cli.render import job_table

    with connect(url, key) as client:
        found = client.tunings(limit)
    print_answer(found, as_json, job_table(found) if found else "no fine-tuning jobs")


@tunings.command("events", epilog="Example: `hmi tune events ftjob-5f...`")
def list_events(
    job_id: _JobId,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, the newest ones.")] = 100,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the events of a job in order, with the metrics of each epoch."""
    from hmi.cli.render import moment

    with connect(url, key) as client:
        found = client.tuning_events(job_id, limit)[::-1]
    levels = ("" if event.level == "info" else f"{event.level}: " for event in found)
    lines = [f"{moment(event.created_at)}  {level}{event.message}" for event, level in zip(found, levels, strict=True)]
    print_answer(found, as_json, *lines)


@tunings.command("cancel", epilog="Example: `hmi tune cancel ftjob-5f...`")
def cancel_tuning(job_id: _JobId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Stop a job at once; it leaves no model."""
    with connect(url, key) as client:
        _print_job(client.cancel_tuning(job_id), as_json)


def _follow_tuning(client: HmiClient, job_id: str) -> JobObject:
    from hmi.cli.render import ProgressBar

    with ProgressBar("fine-tuning", "steps") as bar:
        return follow(lambda: client.tuning(job_id), lambda job: job.is_over, bar.show_tuning)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _print_job(job: JobObject, as_json: bool) -> None:
    progress = job.hmi.progress
    step = f", step {progress.done} of {progress.steps}" if progress and not job.fine_tuned_model else ""
    made = f": {job.fine_tuned_model}" if job.fine_tuned_model else ""
    print_answer(job, as_json, f"{job.id} {job.status}{step}{made}")
    if job.error is not None and not as_json:
        typer.echo(f"  {job.error.message} ({job.error.code})", err=True)
    if job.status == "failed":
        raise typer.Exit(1)
