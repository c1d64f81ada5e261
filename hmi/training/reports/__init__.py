"""What a training reports: progress, metrics, reports, model cards, and comparisons of adapters. Plain data, no torch.

`TrainProgress` is reported after every step, `TrainReport` at the end; `metrics.py` has the metrics of each task.
`AnswerCounts` keeps a model's answers text by text, so that `compare_evaluations` can give a score difference with its
standard error.
"""

from __future__ import annotations

from hmi.training.reports.answer_counts import (
    AnswerCounts,
    Evaluation,
    class_counts,
    compare_evaluations,
    entity_counts,
    multi_label_counts,
    word_counts,
)
from hmi.training.reports.card import (
    TASK_WORDS,
    bullets,
    escape_markdown,
    markdown_table,
    save_adapter_folder,
    save_trained,
    usage,
)
from hmi.training.reports.comparison import IMPORTED, AdapterComparison, RetrainReport
from hmi.training.reports.metrics import (
    Metrics,
    class_metrics,
    entity_metrics,
    language_metrics,
    multi_label_metrics,
    ranking_metrics,
    word_metrics,
)
from hmi.training.reports.report import OnProgress, TrainedAdapter, TrainProgress, TrainReport

__all__ = [
    "IMPORTED",
    "TASK_WORDS",
    "AdapterComparison",
    "AnswerCounts",
    "Evaluation",
    "Metrics",
    "OnProgress",
    "RetrainReport",
    "TrainProgress",
    "TrainReport",
    "TrainedAdapter",
    "bullets",
    "class_counts",
    "class_metrics",
    "compare_evaluations",
    "entity_counts",
    "entity_metrics",
    "escape_markdown",
    "language_metrics",
    "markdown_table",
    "multi_label_counts",
    "multi_label_metrics",
    "ranking_metrics",
    "save_adapter_folder",
    "save_trained",
    "usage",
    "word_counts",
    "word_metrics",
]
