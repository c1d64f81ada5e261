"""hmi train"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.options import AsJson

if TYPE_CHECKING:
    from hmi.training.examples import AnyExample

__all__ = ["add_to"]


class _Kind(StrEnum):
    """As `hmi.adapters.adapter.AdapterKind`, which would load numpy before the help is printed."""

    LORA = "lora"
    BOTTLENECK = "bottleneck"


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: `hmi train reviews.jsonl --base ./minilm-k2 --out ./adapter --dev held-out.jsonl`")(
        train
    )


def train(
    data: Annotated[Path, typer.Argument(help="Labelled text: JSON lines, or CSV with a heading.")],
    base: Annotated[Path, typer.Option(help="Base model folder from `hmi base build`.")],
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
    import json
    import os

    from hmi.engine.cores import tune_process
    from hmi.errors import Conflict

    tune_process(os.environ)
    if out.exists():
        raise Conflict(f"{out} is there already; remove it or choose another folder")
    # Read before torch is loaded, which takes seconds: a mistake in the file shows at once.
    labelled = _read(data, text_field, label_field, judging=False)
    held_out = _read(dev, text_field, label_field, judging=True) if dev else ()

    from hmi.adapters.adapter import AdapterKind
    from hmi.adapters.canonical import save_adapter
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
    trained = train_adapter(base, labelled, config, held_out)
    out.mkdir(parents=True)
    save_adapter(trained.adapter, out / "adapter.safetensors")
    report = trained.report
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=1))
        return
    judged = f", {report.dev.name} {report.dev.score:.3f} (baseline {report.baseline:.3f})" if report.dev else ""
    typer.echo(f"{out}: {len(report.labels)} labels from {report.examples} texts in {report.seconds:.1f} s{judged}")


def _read(path: Path, text_field: str, label_field: str, *, judging: bool) -> Sequence[AnyExample]:
    from hmi.errors import InvalidInput
    from hmi.training.labelled import FileFormat, read_labelled

    try:
        with path.open("rb") as stream:
            return read_labelled(
                stream,
                FileFormat.of(path.name),
                judging=judging,
                text_field=text_field,
                label_field=label_field,
                name=str(path),
            ).examples
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
