"""hmi up"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.commands.options import DataDir, load_settings

if TYPE_CHECKING:
    from hmi.cli.local import ServiceEvent, Services

__all__ = ["EventPrinter", "add_to"]

_API_PORT, _FLOWER_PORT = 8000, 5555


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Examples: `hmi up --port 8080 --device cuda:0`, `HMI_DATABASE_URL=postgresql+psycopg://... hmi up`"
    )(up)


def up(
    data_dir: DataDir = None,
    device: Annotated[
        str | None, typer.Option(help="What the worker computes on: auto, cpu, cuda:0.  [default: auto]")
    ] = None,
    host: Annotated[str, typer.Option(help="Address that the API and Flower listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the API.  [default: 8000, or a free one]")
    ] = None,
    flower_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of Flower.  [default: 5555, or a free one]")
    ] = None,
    flower: Annotated[bool, typer.Option(help="Run Flower, the view of workers and tasks.")] = True,
) -> None:
    """Start all services on this machine and stay: redis, the API, a worker, beat, Flower.

    HMI_BROKER_URL or HMI_DATABASE_URL make it use a Redis or a database that runs already. A service that ends
    is started again. Ctrl-C or SIGTERM stops everything in order.
    """
    from hmi.cli.local import Services

    settings = load_settings()
    services = Services(
        settings,
        data_dir or settings.data_dir,
        device or settings.device,
        flower,
        host=host,
        port=_given_or_free(host, port, _API_PORT),
        flower_port=_given_or_free(host, flower_port, _FLOWER_PORT) if flower else 0,
        on_event=EventPrinter(),
    )
    try:
        with services:
            typer.echo(_welcome(services))
            threading.Event().wait()  # for Ctrl-C; whatever ends meanwhile is started again
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


class EventPrinter:
    """Prints what services do, one line each, on stderr."""

    def __call__(self, event: ServiceEvent) -> None:
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
