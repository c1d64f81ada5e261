"""hmi train"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hmi.cli.options import AsJson

__all__ = ["add_to"]


class _Kind(StrEnum):
    """As `hmi.adapters.adapter.AdapterKind`, which would load numpy before the help is printed."""

    LORA = "lora"
    BOTTLENECK = "bottleneck"


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: `hmi train reviews.jsonl --base ./minilm-k3 --out ./adapter --dev held-out.jsonl`")(
        train
    )


def train(
    data: Annotated[Path, typer.Argument(help="Labelled text: JSON lines, or CSV with a heading.")],
    base: Annotated[Path, typer.Option(help="Base model folder from `hmi build base`.")],
    out: Annotated[Path, typer.Option(help="Adapter folder to make, for `hmi model register --adapter`.")],
    dev: Annotated[Path | None, typer.Option(help="More labelled text, to measure the accuracy on.")] = None,
    kind: Annotated[_Kind, typer.Option(help="What is trained, beside the head.")] = _Kind.BOTTLENECK,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the LoRA pairs, or width of the bottlenecks.")] = 48,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the text.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in one step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="The highest; it rises to it and falls to zero.")] = 3e-3,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longer texts are cut.")] = 128,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda:0.")] = "cpu",
    text_field: Annotated[str, typer.Option(help="Field or column of the text.")] = "text",
    label_field: Annotated[str, typer.Option(help="Field or column of the label.")] = "label",
    as_json: AsJson = False,
) -> None:
    """Train an adapter and a classification head on labelled text; only what lies above the lookup is trained."""
    import dataclasses
    import json
    import os

    from hmi.cli.textfiles import read_labelled
    from hmi.engine.cores import tune_process
    from hmi.errors import Conflict

    tune_process(os.environ)
    if out.exists():
        raise Conflict(f"{out} is there already; remove it or choose another folder")
    # Read before torch is loaded, which takes seconds: a mistake in the file shows at once.
    labelled = read_labelled(data, text_field=text_field, label_field=label_field)
    held_out = read_labelled(dev, text_field=text_field, label_field=label_field) if dev else []

    from hmi.adapters.adapter import AdapterKind
    from hmi.adapters.canonical import save_adapter
    from hmi.training.examples import Example
    from hmi.training.task import TrainConfig, train_adapter

    config = TrainConfig(
        kind=AdapterKind(kind.value),
        rank=rank,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        max_tokens=max_tokens,
        seed=seed,
        device=device,
    )
    trained = train_adapter(base, [Example(*each) for each in labelled], config, [Example(*each) for each in held_out])
    out.mkdir(parents=True)
    save_adapter(trained.adapter, out / "adapter.safetensors")
    report = trained.report
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report), indent=1))
        return
    accuracy = f", accuracy {report.dev_accuracy:.3f}" if report.dev_accuracy is not None else ""
    typer.echo(
        f"{out}: {len(report.labels)} labels from {report.examples} texts in {report.seconds:.1f} s"
        f"{accuracy} (always the most frequent label: {report.majority:.3f})"
    )
