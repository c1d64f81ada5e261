"""An adapter's folder: weights, JSON report and model card. It appears whole or not at all."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hmi.adapters import Adapter
from hmi.adapters.formats import FILE_NAME, save_adapter
from hmi.spec import TaskKind
from hmi.training.reports.metrics import Metrics
from hmi.training.reports.report import TrainedAdapter, TrainReport

_CARD, _REPORT = "README.md", "report.json"
_MOST_CONFUSED = 20  # labels; a wider table is unreadable

TASK_WORDS = {
    TaskKind.CLASSIFICATION: "one label for each text",
    TaskKind.MULTI_LABEL: "any number of labels for each text",
    TaskKind.TOKENS: "a label for each word",
    TaskKind.EMBEDDING: "embeddings",
    TaskKind.LANGUAGE: "text generation",
}


def save_trained(trained: TrainedAdapter, out: Path, data: str) -> None:
    """Make the folder `out` with adapter, report and card. `data` names the training text in the card.

    Raises `OSError`; then nothing is left.
    """
    save_adapter_folder(out, trained.adapter, trained.report.to_json(), model_card(trained.report, out.name, data))


def save_adapter_folder(out: Path, adapter: Adapter, report: Mapping[str, Any], card: str) -> None:
    """Raises `OSError`; then nothing is left."""
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    beside.mkdir(parents=True)
    try:
        save_adapter(adapter, beside / FILE_NAME)
        (beside / _REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (beside / _CARD).write_text(card, encoding="utf-8")
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def model_card(report: TrainReport, name: str, data: str) -> str:
    """Markdown: what the adapter is, its training, its metrics, how to use it, its limits."""
    urls = {TaskKind.EMBEDDING: "/v1/embeddings", TaskKind.LANGUAGE: "/v1/completions"}
    field = "prompt" if report.task is TaskKind.LANGUAGE else "input"
    how = usage(urls.get(report.task, "/v1/classify"), field)
    parts = [f"# {escape_markdown(name)}", _what(report), "## Training", *_training(report, data), "## Evaluation"]
    parts += [*_evaluation(report), "## Use", f"{how} The domain is the one that it was trained for.", "## Limits"]
    return "\n\n".join([*parts, bullets(_limits(report))]) + "\n"


def _what(report: TrainReport) -> str:
    config = report.config
    where = f"looks {report.k} lower layers up" if report.k else "is the ordinary model (k = 0)"
    kind = {"lora": f"A LoRA of rank {config.rank}", "bottleneck": f"Bottlenecks of width {config.rank}"}
    return (
        f"{kind.get(config.kind.value, 'A head alone')} for {TASK_WORDS[report.task]}, on top of base model "
        f"`{report.base[:12]}`, which {where}. It runs on that base alone: the digest of another is refused."
    )


def _training(report: TrainReport, data: str) -> list[str]:
    config = report.config
    early = f" of at most {config.epochs}" if report.epochs < config.epochs else ""
    which = f", of which number {report.best_epoch} was kept" if report.dev else ""
    start = ", starting from another adapter's weights" if report.started else ""
    parts = [
        f"{report.examples:,} examples of {escape_markdown(data)}, {report.tokens:,} tokens in all; "
        f"{report.epochs} epochs{early}{which}{start}; "
        f"{report.seconds:.1f} s, {report.seconds_per_thousand_examples:.1f} s per thousand examples.",
    ]
    if report.left_out:
        parts.append(f"{report.left_out:,} more examples were left out, because their text is in the dev set.")
    if report.labels:
        pairs = zip(report.labels, report.label_counts, strict=True)
        parts.append(markdown_table(["label", "examples" if report.task is not TaskKind.TOKENS else "words"], pairs))
    return parts


def _evaluation(report: TrainReport) -> list[str]:
    dev = report.dev
    if dev is None:
        return ["Not evaluated: all examples were trained on."]
    without_labels = report.task in (TaskKind.EMBEDDING, TaskKind.LANGUAGE)
    baseline = "the base model as it is" if without_labels else "always the most frequent label"
    rows = [(name.replace("_", " "), f"{value:.3f}") for name, value in dev.values.items()]
    rows.append((f"{dev.name.replace('_', ' ')}: {baseline}", f"{report.baseline:.3f}"))
    parts = [
        f"On {report.dev_examples:,} examples that were not trained on; they chose the epoch, so the metrics may be a "
        "little lower on new text.",
        markdown_table(["metric", "value"], rows),
    ]
    if dev.labels:
        scores = [
            (each.label, f"{each.precision:.3f}", f"{each.recall:.3f}", f"{each.f1:.3f}", each.support)
            for each in dev.labels
        ]
        parts.append(markdown_table(["label", "precision", "recall", "F1", "support"], scores))
    return parts + _confusion(report.labels, dev)


def _confusion(labels: Sequence[str], dev: Metrics) -> list[str]:
    if dev.confusion is None or len(labels) > _MOST_CONFUSED:
        return []
    rows = [(label, *counts) for label, counts in zip(labels, dev.confusion, strict=True)]
    return ["How often a label (row) was answered with another (column):", markdown_table(["", *labels], rows)]


def _limits(report: TrainReport) -> list[str]:
    limits = [
        "Text of another kind, language or time than the examples may be answered worse than the metrics say, and "
        'never with "I do not know".',
        f"Texts of more than {report.config.max_tokens} tokens were cut in training.",
    ]
    if report.task is TaskKind.TOKENS:
        limits.append("Words are the tokenizer's; a label that ends inside one covers all of it.")
    if report.k:
        limits.append("Under the miss policy `backoff` answers may differ from those that were evaluated here.")
    return limits


def usage(url: str, field: str) -> str:
    """How to register the folder and send a line of a batch."""
    body = f'{{"model": "TENANT/MODEL", "{field}": "..."}}'
    return (
        "```console\n$ hmi model register TENANT/MODEL --base BASE --domain DOMAIN --adapter THIS_FOLDER\n```\n\n"
        f'and lines of a batch with `"url": "{url}", "body": {body}`.'
    )


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(escape_markdown(str(cell)) for cell in line)} |" for line in lines)


def escape_markdown(text: str) -> str:
    """Untrusted text that cannot break out of a table or become markup."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return "".join(f"\\{character}" if character in "\\`*_{}[]<>|#" else character for character in shown)
