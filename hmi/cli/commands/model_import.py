"""hmi model import"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.commands.labelled_file import read_labelled_file
from hmi.cli.commands.options import AsJson, Key, Seed, Url, connect

if TYPE_CHECKING:
    from hmi.adapters import Adapter
    from hmi.training.data import AnyExample
    from hmi.training.imports import RetrainTarget
    from hmi.training.plan import TrainConfig
    from hmi.training.reports import RetrainReport

__all__ = ["add_to"]

_NO_DELTA = "none"


def add_to(app: typer.Typer) -> None:
    app.command(
        name="import",
        epilog="Examples: `hmi model import ./theirs --base ./minilm-k0 --out ./adapter --label no --label yes`, "
        "`hmi model import ./theirs --base ./minilm-k0 --out ./adapter --data reviews.jsonl --compare ./minilm-k3`",
    )(import_)


def import_(
    folder: Annotated[Path, typer.Argument(help="Adapter folder that PEFT or AdapterHub saved.")],
    base: Annotated[Path, typer.Option(help="Folder of the ordinary model: `hmi build base MODEL --k 0`.")],
    out: Annotated[Path, typer.Option(help="Adapter folder to make; retrained ones are made beside it.")],
    label: Annotated[list[str] | None, typer.Option(help="A label's name; once for each, in the head's order.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled text, as for `hmi train`: judge the adapter, and train others like it."),
    ] = None,
    dev: Annotated[
        Path | None, typer.Option(help="More labelled text, to judge by; best of a kind that it never learnt from.")
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(help="Base of the same model with k > 0 to train on; may be given several times."),
    ] = None,
    delta: Annotated[
        list[str] | None,
        typer.Option(help="Folder of a domain's delta for each --compare, in their order; `none` for none."),
    ] = None,
    dev_share: Annotated[
        float, typer.Option(min=0.01, max=0.3, help="Of --data, to choose the epoch by, and to judge by without --dev.")
    ] = 0.1,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the text, at most.")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in one step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="The highest; it rises to it and falls to zero.")] = 3e-3,
    max_tokens: Annotated[int, typer.Option(min=3, help="Longer texts are cut, to judge by them too.")] = 128,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda:0.")] = "cpu",
    text_field: Annotated[str, typer.Option(help="Field or column of the text.")] = "text",
    label_field: Annotated[str, typer.Option(help="Field or column of the label.")] = "label",
    register: Annotated[str | None, typer.Option(help="`tenant/model` to register it as, at once.")] = None,
    domain: Annotated[str, typer.Option(help="Domain of the registered model.")] = "general",
    base_name: Annotated[
        str | None, typer.Option(help="Registered name of the base.  [default: the one with --base's content]")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Take over an adapter that was trained elsewhere on the ordinary model; it is hosted exactly, at k = 0.

    With --data, a report of what it would lose if it were trained again: as it is, trained again at k = 0, and on each
    base to compare, by the same texts. Needs no services but for --register.
    """
    import json
    import os

    from hmi.errors import Conflict, InvalidInput
    from hmi.process import tune_process

    tune_process(os.environ)
    if out.exists():
        raise Conflict(f"{out} is there already; remove it or choose another folder")
    if data is None and (dev or compare or delta):
        raise InvalidInput("--dev, --compare and --delta are for the report, which needs --data")

    from hmi.cli.commands.import_report import imported_lines, show_report
    from hmi.training.adapter import task_of
    from hmi.training.imports import import_adapter, save_imported

    imported = import_adapter(folder, base, label)
    if register and base_name is None:
        base_name = _registered_name(imported.base, base, url, key)
    report = None
    if data is not None and imported.adapter.head is not None:
        from hmi.training.plan import TrainConfig

        how = TrainConfig(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            max_tokens=max_tokens,
            dev_share=dev_share,
            seed=seed,
            device=device,
        )
        task = task_of(imported.adapter.head)
        labelled = read_labelled_file(data, task, text_field, label_field, judging=False)
        for warning in labelled.warnings:
            typer.echo(f"{data}: {warning}", err=True)
        judging = read_labelled_file(dev, task, text_field, label_field, judging=True).examples if dev else ()
        report = _retrain(
            imported.adapter,
            base,
            out,
            data.name,
            labelled.examples,
            judging,
            _targets(compare or [], delta or []),
            how,
        )
    plain = save_imported(imported, out, report)
    if as_json:
        typer.echo(json.dumps(plain, indent=1, ensure_ascii=False))
    else:
        typer.echo(imported_lines(imported, out))
        if report is not None:
            show_report(report, out)
    if register:
        with connect(url, key) as client:
            made = client.register_model(register, base=base_name or "", domain=domain, adapter=out)
        typer.echo(f"{made.name} is served (revision {made.revision})", err=as_json)
    if data is not None and report is None:
        raise InvalidInput(
            f"{out} was made, but there is no report: the adapter has no head, and gives no labels that could be judged"
        )


def _retrain(
    adapter: Adapter,
    base: Path,
    out: Path,
    source: str,
    examples: Sequence[AnyExample],
    judging: Sequence[AnyExample],
    faster: Sequence[RetrainTarget],
    how: TrainConfig,
) -> RetrainReport:
    """Train and judge, and leave each adapter that was trained on the text called `source` in a folder beside `out`."""
    from hmi.cli.render import TrainingBar, training_words
    from hmi.errors import Conflict
    from hmi.training.imports import name_targets, retrain
    from hmi.training.reports import save_trained

    folders = {name: out.with_name(f"{out.name}-{name}") for name in name_targets(base, faster)}
    if there := next((each for each in folders.values() if each.exists()), None):
        raise Conflict(f"{there} is there already; remove it or choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)

    def checkpoint(name: str) -> Path:
        return out.with_name(f".{out.name}-{name}.training")

    with TrainingBar() as bar:
        found = retrain(
            base,
            adapter,
            examples,
            how,
            judging,
            faster=faster,
            on_progress=lambda name, reached: bar.show(reached, f"{name}: {training_words(reached)}"),
            checkpoint=checkpoint,
        )
    for name, trained in found.adapters.items():
        save_trained(trained, folders[name], source)
        checkpoint(name).unlink(missing_ok=True)
    return found.report


def _targets(bases: list[Path], deltas: list[str]) -> list[RetrainTarget]:
    from hmi.adapters.formats import read_delta
    from hmi.errors import InvalidInput
    from hmi.models.families import load_spec
    from hmi.training.imports import RetrainTarget

    if deltas and len(deltas) != len(bases):
        raise InvalidInput(f"{len(bases)} --compare and {len(deltas)} --delta: give one for each, or `{_NO_DELTA}`")
    pairs = zip(bases, deltas or [_NO_DELTA] * len(bases), strict=True)
    return [
        RetrainTarget(base, None if delta == _NO_DELTA else read_delta(Path(delta), load_spec(base)))
        for base, delta in pairs
    ]


def _registered_name(digest: str, base: Path, url: str | None, key: str | None) -> str:
    from hmi.errors import NotFound

    with connect(url, key) as client:
        name = next((each.name for each in client.bases() if each.artifact == digest), None)
    if name is None:
        raise NotFound(f"no registered base model has the content of {base}: `hmi base register NAME {base}`")
    return name
