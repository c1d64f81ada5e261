"""hmi demo"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from hmi.cli.commands.options import load_settings


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
