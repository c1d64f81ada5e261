"""hmi demo"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.commands.options import load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from examples.demo import ChatFigures, DemoFigures, Steps
    from hmi.cli.local import Services
    from hmi.settings import Settings

__all__ = ["add_to"]

_FIGURES = "demo.json"  # in the data folder
_FLUSH_SECONDS = 2  # counts of lookups are shown minutes after they were made, not hours
_QUICK_SHARD_LINES = 64  # so that a small batch is several shards too


def add_to(app: typer.Typer) -> None:
    app.command(name="demo", epilog="Examples: `hmi demo`, `hmi demo --decoder --keep`, `hmi demo --quick --json`")(
        demo
    )


def demo(
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", "--data", help="Folder of the demonstration's data.  [default: .hmi/demo]"),
    ] = None,
    device: Annotated[str, typer.Option(help="What the worker computes on: auto, cpu, cuda:0.")] = "auto",
    decoder: Annotated[
        bool, typer.Option("--decoder", help="Tenants of a small Llama that answer each in a voice of its own.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer tenants and sentences: about a minute.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the services running until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON at the end.")] = False,
) -> None:
    """Show everything once on this machine: tenants of four domains trained, served together, and measured.

    With --decoder the same for texts that are continued. A second run takes what the first one left in the data folder.
    """
    from rich.console import Console

    from hmi.process import tune_process

    tune_process(os.environ)
    settings = load_settings()
    console = Console(stderr=as_json, highlight=False)
    try:
        folder = data_dir or settings.data_dir / ("demo-decoder" if decoder else "demo")
        figures = _run(console, settings, folder, device, decoder=decoder, quick=quick, keep=keep)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(figures.to_dict(), indent=1))


def _run(
    console: Console, settings: Settings, data_dir: Path, device: str, *, decoder: bool, quick: bool, keep: bool
) -> DemoFigures | ChatFigures:
    from examples.demo import FULL, QUICK, ChatStory, Interrupts, Steps, Story, read_text
    from hmi.cli.local import Services

    scale = QUICK if quick else FULL
    steps = Steps(console)
    text = None if decoder else read_text(steps, _cache(), scale)
    update: dict[str, object] = {"flush_seconds": _FLUSH_SECONDS}
    if quick:
        update["shard_lines"] = _QUICK_SHARD_LINES
    adapted = settings.model_copy(update=update)
    with contextlib.ExitStack() as stack:
        with steps.step("Services: redis, API, worker, beat, Flower"):
            services = stack.enter_context(Services(adapted, data_dir, device))
            _say_where(steps, services)
        with Interrupts():
            figures: DemoFigures | ChatFigures
            if text is None:
                figures = ChatStory(services, steps, _cache(), device, quick=quick).run()
            else:
                figures = Story(services, steps, text, scale, device).run()
        (services.data_dir / _FIGURES).write_text(json.dumps(figures.to_dict(), indent=1))
        console.print(
            f"\nDone in {figures.seconds:.0f} s. The figures are in {services.data_dir / _FIGURES}.", soft_wrap=True
        )
        if keep:
            _say_where(steps, services)
            steps.say(f"admin key: {services.admin_key}")
            steps.say("Ctrl-C stops everything.")
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
        else:
            console.print(f"To look around: hmi demo --keep, or hmi up --data-dir {services.data_dir}", soft_wrap=True)
    return figures


def _say_where(steps: Steps, services: Services) -> None:
    user, password = services.flower_auth
    steps.say(f"API     {services.api_url}/v1, reference {services.docs_url}")
    steps.say(f"Flower  {services.flower_url} (user {user}, password {password})")
    steps.say(f"logs    {services.data_dir / 'logs'}")


def _cache() -> Path:
    """Where downloads are kept for all runs of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmi"
