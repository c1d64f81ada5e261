"""An imported adapter: the canonical file, its origin, and a model card."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmi.adapters import Adapter
from hmi.adapters.formats import Origin, read_adapter, read_origin
from hmi.artifacts import folder_digest
from hmi.errors import InvalidInput
from hmi.spec import read_spec
from hmi.training.adapter import task_of
from hmi.training.reports import (
    IMPORTED,
    TASK_WORDS,
    AdapterComparison,
    RetrainReport,
    bullets,
    escape_markdown,
    markdown_table,
    save_adapter_folder,
    usage,
)


@dataclass(frozen=True, slots=True)
class ImportedAdapter:
    """An adapter that was trained elsewhere."""

    adapter: Adapter
    source: str  # name of the folder that it was read from
    origin: Origin
    base: str  # digest of its base artifact, which has k = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON values, without weights."""
        return {
            "source": self.source,
            "origin": dataclasses.asdict(self.origin),
            "base": self.base,
            "k": 0,
            "adapter": self.adapter.summary(),
        }


def import_adapter(folder: Path, base: Path, labels: Sequence[str] | None = None) -> ImportedAdapter:
    """Read a folder of PEFT, AdapterHub or HMI, for the base artifact in `base`; `labels` as in `read_adapter`.

    Raises `AdapterRefused` (anything in the folder that is not understood, with the reason), `InvalidInput` (a base
    with k > 0, on which an adapter of the ordinary model is not exact), `Corrupt` (the base).
    """
    spec = read_spec(base)
    if spec.k:
        raise InvalidInput(
            f"{base} looks {spec.k} lower layers up, and an imported adapter is exact on the ordinary model alone: "
            "`hmi build base MODEL --k 0` makes a base of it",
            param="base",
        )
    adapter = read_adapter(folder, spec, labels)
    return ImportedAdapter(adapter, folder.resolve().name, read_origin(folder), folder_digest(base))


def save_imported(imported: ImportedAdapter, out: Path, report: RetrainReport | None = None) -> dict[str, Any]:
    """Make the folder `out`: adapter, card, and report, which is returned. Raises `OSError`; then nothing is left."""
    content = {"imported": imported.to_json(), "retraining": report.to_json() if report else None}
    save_adapter_folder(out, imported.adapter, content, imported_card(imported, out.name, report))
    return content


def imported_card(imported: ImportedAdapter, name: str, report: RetrainReport | None = None) -> str:
    """Markdown: what the adapter is, its origin, what retraining would cost, how to use it."""
    how = usage("/v1/classify" if imported.adapter.head else "/v1/embeddings", "input")
    parts = [f"# {escape_markdown(name)}", *_what(imported), "## Origin", _origin(imported)]
    if report is not None:
        parts += ["## Cost of retraining", *_retraining(report)]
    parts += ["## Use", f"{how} BASE is the ordinary model, with k = 0.", "## Limits", bullets(_limits(report))]
    return "\n\n".join(parts) + "\n"


def _what(imported: ImportedAdapter) -> list[str]:
    summary, head = imported.adapter.summary(), imported.adapter.head
    kinds = {"lora": "A LoRA", "bottleneck": "Bottlenecks", "none": "A head alone"}
    task = TASK_WORDS[task_of(head)] if head else "embeddings: it has no head"
    rows: list[tuple[str, object]] = [
        (name, ", ".join(map(str, summary[name] or ())) or "-") for name in ("ranks", "layers", "sites", "labels")
    ]
    return [
        f"{kinds[summary['kind']]} for {task}, on top of base model `{imported.base[:12]}`, which is the ordinary "
        "model (k = 0). Its weights are unchanged, so on that model its answers are those of the library that trained "
        "it, within the rounding of the dtype.",
        markdown_table(["part", "value"], [*rows, ("bytes", f"{summary['bytes']:,}")]),
    ]


def _origin(imported: ImportedAdapter) -> str:
    origin = imported.origin
    version = f" {origin.version}" if origin.version else ""
    model = f"{escape_markdown(origin.model)} as the model that it was trained on" if origin.model else "no model"
    return (
        f"The folder {escape_markdown(imported.source)}, saved by {escape_markdown(origin.library + version)}. "
        f"It names {model}. Only the shapes of its weights were compared with the base model: they fit."
    )


def _retraining(report: RetrainReport) -> list[str]:
    chosen = f"{report.dev_examples:,} others chose the epoch" if report.dev_examples else "no others chose an epoch"
    metric = report.metric.replace("_", " ")
    heading = ["", metric, "macro F1", "to the imported", "to retrained, k = 0", "layers run", "bytes", "seconds"]
    return [
        f"Adapters of the same kind and size, trained on {report.train_examples:,} examples; {chosen}. All were "
        f"evaluated on {report.test_examples:,} further texts; differences are in points, with a standard error over "
        "those texts.",
        markdown_table(heading, [_row(each, report.metric) for each in report.comparisons]),
        bullets(map(escape_markdown, report.notes)),
    ]


def _row(each: AdapterComparison, metric: str) -> list[str]:
    return [
        f"{'imported' if each.name == IMPORTED else 'retrained'}, k = {each.k}{', with delta' if each.delta else ''}",
        f"{each.metrics[metric]:.3f}",
        f"{each.metrics['macro_f1']:.3f}",
        str(each.to_imported.score) if each.to_imported else "-",
        str(each.to_retrained.score) if each.to_retrained else "-",
        f"{each.layers - each.k} of {each.layers}",
        f"{each.bytes:,}",
        f"{each.seconds:.1f}" if each.seconds is not None else "-",
    ]


def _limits(report: RetrainReport | None) -> list[str]:
    limits = [
        "Its training text, and its metrics on other text, are not known here.",
        "It must not run on a base with k > 0, whose layers give other states than those it was trained on; retrain it "
        "there.",
    ]
    if report is not None and report.truncated:
        longest = report.config.max_tokens
        limits.append(f"{report.truncated:,} of the evaluated texts were longer than {longest} tokens.")
    return limits
