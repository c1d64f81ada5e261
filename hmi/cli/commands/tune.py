"""hmi tune"""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hmi.cli.commands.options import AsJson, Key, Url, connect, print_answer, show

if TYPE_CHECKING:
    from hmi.cli.client import HmiClient
    from hmi.schemas import JobObject

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Fine-tuning jobs: labelled text that workers make models of.")

_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 60  # an API that is started again is back sooner

_JobId = Annotated[str, typer.Argument(metavar="JOB", help="From `hmi tune create`.")]


class _Task(StrEnum):
    """As `hmi.training.data.examples.TaskKind`, which would load numpy before the help is printed."""

    CLASSIFICATION = "classification"
    MULTI_LABEL = "multi_label"
    TOKENS = "tokens"
    EMBEDDING = "embedding"
    LANGUAGE = "language"


class _Kind(StrEnum):
    """As `hmi.adapters.adapter.AdapterKind`, likewise."""

    LORA = "lora"
    BOTTLENECK = "bottleneck"


class _Policy(StrEnum):
    EXACT = "exact"
    BACKOFF = "backoff"


@app.command(epilog="Example: `hmi tune create reviews.jsonl --model minilm-k3 --suffix sentiment --wait`")
def create(
    data: Annotated[Path, typer.Argument(help="Labelled text: JSON lines, or CSV with a heading.")],
    model: Annotated[str, typer.Option(help="A base model, or a model of yours, to be trained anew.")],
    suffix: Annotated[str | None, typer.Option(help="The model's name, without the tenant's.")] = None,
    validation: Annotated[Path | None, typer.Option(help="More labelled text, which judges after every epoch.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most so many passes over the text.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Texts in one step.")] = None,
    learning_rate_multiplier: Annotated[float | None, typer.Option(help="Of the usual learning rate.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="The same seed gives the same weights.")
    ] = None,
    task: Annotated[_Task | None, typer.Option(help="Default: what the file's fields say.")] = None,
    domain: Annotated[str | None, typer.Option(help="Where n-grams are looked up first.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="A model of yours to begin with, say on a base with k = 0; its kind and rank are taken over."
        ),
    ] = None,
    kind: Annotated[_Kind | None, typer.Option(help="What is trained, beside the head.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of LoRA pairs, or width of bottlenecks.")] = None,
    miss_policy: Annotated[_Policy | None, typer.Option(help="What an n-gram that is not stored gets.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=3, help="Longer texts are cut in training.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the progress until it is over.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload labelled text and have a model made of it, which is served when the job has succeeded."""
    chosen = {"n_epochs": epochs, "batch_size": batch_size, "learning_rate_multiplier": learning_rate_multiplier}
    options = {
        "task": task,
        "domain": domain,
        "start": start,
        "kind": kind,
        "rank": rank,
        "miss_policy": miss_policy,
        "max_tokens": max_tokens,
    }
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
            job = _follow(client, job)
    _print(job, as_json)


@app.command(name="show", epilog="Example: `hmi tune show ftjob-5f... --json`")
def show_(job_id: _JobId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Say how far a job is. Exit status 1 where it failed."""
    with connect(url, key) as client:
        _print(client.tuning(job_id), as_json)


@app.command(epilog="Example: `hmi tune watch ftjob-5f...`")
def watch(job_id: _JobId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show a job's progress until it is over."""
    with connect(url, key) as client:
        _print(_follow(client, client.tuning(job_id)), as_json)


@app.command(name="list", epilog="Example: `hmi tune list --limit 5`")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, the newest first.")] = 20,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List jobs."""
    from hmi.cli.render import job_table

    with connect(url, key) as client:
        found = client.tunings(limit)
    if as_json:
        print_answer(found)
    else:
        show(job_table(found) if found else "no fine-tuning jobs")


@app.command(epilog="Example: `hmi tune events ftjob-5f...`")
def events(
    job_id: _JobId,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, the newest ones.")] = 100,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Say what happened to a job, in order, with the metrics of each epoch."""
    from hmi.cli.render import moment

    with connect(url, key) as client:
        found = client.tuning_events(job_id, limit)[::-1]
    if as_json:
        print_answer(found)
        return
    for event in found:
        level = "" if event.level == "info" else f"{event.level}: "
        typer.echo(f"{moment(event.created_at)}  {level}{event.message}")


@app.command(epilog="Example: `hmi tune cancel ftjob-5f...`")
def cancel(job_id: _JobId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """End a job here and now; it leaves no model."""
    with connect(url, key) as client:
        _print(client.cancel_tuning(job_id), as_json)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _follow(client: HmiClient, job: JobObject) -> JobObject:
    """The job once it is over; an API that does not answer for a while is waited for."""
    from rich.console import Console

    from hmi.cli.render import TuningBar
    from hmi.errors import HmiError

    with TuningBar(console=Console(stderr=True)) as bar:
        heard = time.monotonic()
        while True:
            bar.update_from(job)
            if job.is_over:
                return job
            time.sleep(_POLL_SECONDS)
            try:
                job = client.tuning(job.id)
                heard = time.monotonic()
            except HmiError as error:
                if not error.retryable or time.monotonic() - heard > _PATIENCE_SECONDS:
                    raise


def _print(job: JobObject, as_json: bool) -> None:
    progress = job.hmi.progress
    if as_json:
        print_answer(job)
    else:
        far = f", step {progress.done} of {progress.steps}" if progress and not job.fine_tuned_model else ""
        made = f": {job.fine_tuned_model}" if job.fine_tuned_model else ""
        typer.echo(f"{job.id} {job.status}{far}{made}")
        if job.error is not None:
            typer.echo(f"  {job.error.message} ({job.error.code})", err=True)
    if job.status == "failed":
        raise typer.Exit(1)
