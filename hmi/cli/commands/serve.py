"""hmi up, hmi demo, hmi status, hmi db"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.commands.options import AsJson, DataDir, Key, Url, connect, load_settings, show

if TYPE_CHECKING:
    from hmi.cli.local import ServiceEvent, Services

_API_PORT, _FLOWER_PORT = 8000, 5555

database = typer.Typer(no_args_is_help=True, help="The catalog's database.")


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Examples: `hmi up --port 8080 --device cuda:0`, `HMI_DATABASE_URL=postgresql+psycopg://... hmi up`"
    )(up)
    app.command(epilog="Examples: `hmi demo`, `hmi demo --decoder --keep`, `hmi demo --quick --json`")(demo)
    app.command(epilog="Example: `hmi status --json`")(status)
    app.add_typer(database, name="db")


def up(
    data_dir: DataDir = None,
    device: Annotated[str | None, typer.Option(help="Of the worker: cpu, cuda:0.  [default: auto]")] = None,
    host: Annotated[str, typer.Option(help="Address that the API and Flower listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Of the API.  [default: 8000 or free]")] = None,
    flower_port: Annotated[int | None, typer.Option(min=0, max=65535, help="[default: 5555 or free]")] = None,
    flower: Annotated[bool, typer.Option(help="Run Flower, the view of workers and tasks.")] = True,
) -> None:
    """Start all services on this machine and keep them running: redis, the API, a worker, beat, Flower.

    HMI_BROKER_URL or HMI_DATABASE_URL name a Redis or a database that runs already. A service that ends is restarted.
    Ctrl-C or SIGTERM stops everything in order.
    """
    from hmi.cli.local import Services

    settings = load_settings()
    services = Services(
        settings,
        data_dir or settings.data_dir,
        device or settings.device,
        host=host,
        port=_given_or_free(host, port, _API_PORT),
        flower_port=_given_or_free(host, flower_port, _FLOWER_PORT) if flower else None,
        on_event=_print_event,
    )
    try:
        with services:
            typer.echo(_welcome(services))
            threading.Event().wait()  # until Ctrl-C; a service that ends is restarted
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


def _print_event(event: ServiceEvent) -> None:
    typer.echo(f"{event.service:>6}  {event.state}{f': {event.detail}' if event.detail else ''}", err=True)


def _given_or_free(host: str, given: int | None, preferred: int) -> int:
    from hmi.cli.local import is_free

    if given is not None:
        return given
    return preferred if is_free(host, preferred) else 0


def _welcome(services: Services) -> str:
    lines = [
        "",
        f"API     {services.api_url}/v1   (reference: {services.docs_url})",
        f"key     {services.admin_key}",
    ]
    if services.flower_url:
        user, password = services.flower_auth
        lines.append(f"Flower  {services.flower_url}   (user {user}, password {password})")
    lines += [
        f"logs    {services.data_dir / 'logs'}",
        "",
        "# In Python, once a base model and a tenant's model are registered (hmi base --help, hmi model --help):",
        "from openai import OpenAI",
        f'client = OpenAI(base_url="{services.api_url}/v1", api_key="{services.admin_key}")',
        'file = client.files.create(file=open("batch.jsonl", "rb"), purpose="batch")',
        'batch = client.batches.create(input_file_id=file.id, endpoint="/v1/classify", completion_window="24h")',
        "print(client.batches.retrieve(batch.id).status)",
        "",
        "Ctrl-C stops everything.",
    ]
    return "\n".join(lines)


def demo(
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", "--data", help="Folder of the demonstration's data.  [default: .hmi/demo]"),
    ] = None,
    device: Annotated[str, typer.Option(help="What the worker computes on: auto, cpu, cuda:0.")] = "auto",
    decoder: Annotated[
        bool, typer.Option("--decoder", help="Tenants of a small Llama, with styles of answers.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer tenants and sentences: about a minute.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the services running until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON at the end.")] = False,
) -> None:
    """Run everything once on this machine: tenants of four domains are trained, served together, and measured.

    With --decoder, tenants of a language model instead. A second run uses what the first one left in the data folder.
    """
    from rich.console import Console

    from hmi.process import tune_process

    tune_process(os.environ)

    from examples.demo import run_demo

    settings = load_settings()
    try:
        figures = run_demo(
            Console(stderr=as_json, highlight=False),
            settings,
            data_dir or settings.data_dir / ("demo-decoder" if decoder else "demo"),
            device,
            decoder=decoder,
            quick=quick,
            keep=keep,
        )
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(figures.to_dict(), indent=1))


def status(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show the workers, the adapters in their memory, the hit rates of the trees, and the open batches."""
    from hmi.cli.render import batch_table, knowledge_tree, residency, workload

    with connect(url, key) as client:
        client.check_ready()
        nodes, trees = client.nodes(), client.trees()
        waiting = [each for each in client.batches(limit=100) if not each.is_over]
    if as_json:
        data = {
            "nodes": [each.model_dump(mode="json") for each in nodes],
            "trees": [each.model_dump(mode="json") for each in trees],
            "batches": [each.model_dump(mode="json") for each in waiting],
        }
        typer.echo(json.dumps(data, indent=1, ensure_ascii=False))
        return
    if not nodes:
        show("no worker has reported")
    else:
        show(workload(nodes))
        show(residency(nodes))
    for each in trees:
        show(knowledge_tree(each))
    show(batch_table(waiting) if waiting else "no batch of this key's tenant is waiting or running")


_DatabaseUrl = Annotated[str | None, typer.Option(help="Default: HMI_DATABASE_URL, or SQLite in the data folder.")]


@database.command(epilog="Example: `HMI_DATABASE_URL=postgresql+psycopg://hmi@db/hmi hmi db upgrade`")
def upgrade(database_url: _DatabaseUrl = None) -> None:
    """Bring the schema up to date; running it again changes nothing."""
    from hmi.catalog import upgrade_schema as migrate

    migrate(database_url or _own_database())
    typer.echo("the schema is up to date")


@database.command(epilog="Example: `hmi db check || hmi db upgrade`")
def check(database_url: _DatabaseUrl = None) -> None:
    """Exit with 0 if the schema is up to date, else with 1."""
    from hmi.catalog import Database, is_schema_current
    from hmi.errors import Conflict

    catalog = Database(database_url or _own_database())
    try:
        if not is_schema_current(catalog):
            raise Conflict("the schema is not up to date: run `hmi db upgrade`")
    finally:
        catalog.dispose()
    typer.echo("the schema is up to date")


def _own_database() -> str:
    from hmi.cli.client import DataFolder

    settings = load_settings()
    if not settings.database_url:
        DataFolder(settings.data_dir).prepare()
    return settings.resolved_database_url
