"""hmi batch"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.commands.options import AsJson, Key, Url, connect, print_answer, show

if TYPE_CHECKING:
    from hmi.cli.client import HmiClient
    from hmi.schemas import BatchObject

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Batches: files of requests that workers run.")

_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 60  # an API that is started again is back sooner

_BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="From `hmi batch submit`.")]


@app.command(epilog="Example: `hmi batch submit requests.jsonl --endpoint /v1/classify --wait`")
def submit(
    file: Annotated[Path, typer.Argument(help="JSON lines: custom_id, method, url, body.")],
    endpoint: Annotated[
        str,
        typer.Option(help="As in the lines' url: /v1/classify, /v1/embeddings, /v1/completions, /v1/chat/completions."),
    ] = "/v1/classify",
    window: Annotated[str, typer.Option(help="After so long, lines that have not run are given up.")] = "24h",
    wait: Annotated[bool, typer.Option("--wait", help="Show the progress until it is over.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file of requests and start a batch of it."""
    with connect(url, key) as client:
        batch = client.create_batch(client.upload(file).id, endpoint=endpoint, window=window)
        if wait:
            batch = _follow(client, batch)
    _print(batch, as_json)


@app.command(epilog="Example: `hmi batch status batch_5f...`")
def status(batch_id: _BatchId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Say how far a batch is. Exit status 1 where it failed."""
    with connect(url, key) as client:
        _print(client.batch(batch_id), as_json)


@app.command(epilog="Example: `hmi batch watch batch_5f...`")
def watch(batch_id: _BatchId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show a batch's progress until it is over."""
    with connect(url, key) as client:
        _print(_follow(client, client.batch(batch_id)), as_json)


@app.command(name="list", epilog="Example: `hmi batch list --limit 5`")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, the newest first.")] = 20,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List batches."""
    from hmi.cli.render import batch_table

    with connect(url, key) as client:
        found = client.batches(limit)
    if as_json:
        print_answer(found)
    else:
        show(batch_table(found) if found else "no batches")


@app.command(epilog="Example: `hmi batch cancel batch_5f...`")
def cancel(batch_id: _BatchId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Stop a batch; what has run by then stays in its output."""
    with connect(url, key) as client:
        _print(client.cancel_batch(batch_id), as_json)


@app.command(epilog="Example: `hmi batch output batch_5f... | jq .custom_id`")
def output(
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


def _follow(client: HmiClient, batch: BatchObject) -> BatchObject:
    """The batch once it is over; an API that does not answer for a while is waited for."""
    from rich.console import Console

    from hmi.cli.render import BatchProgress
    from hmi.errors import HmiError

    with BatchProgress(console=Console(stderr=True)) as progress:
        heard = time.monotonic()
        while True:
            progress.update_from(batch)
            if batch.is_over:
                return batch
            time.sleep(_POLL_SECONDS)
            try:
                batch = client.batch(batch.id)
                heard = time.monotonic()
            except HmiError as error:
                if not error.retryable or time.monotonic() - heard > _PATIENCE_SECONDS:
                    raise


def _print(batch: BatchObject, as_json: bool) -> None:
    counts = batch.request_counts
    if as_json:
        print_answer(batch)
    else:
        typer.echo(
            f"{batch.id} {batch.status}: {counts.completed} of {counts.total} lines done, {counts.failed} failed"
        )
        for problem in batch.errors.data if batch.errors else ():
            where = f"line {problem.line}: " if problem.line is not None else ""
            typer.echo(f"  {where}{problem.message} ({problem.code})", err=True)
    if batch.status == "failed":
        raise typer.Exit(1)
