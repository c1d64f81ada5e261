"""TODO"""

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
from hmi.training.reports.card import TASK_WORDS, save_adapter_folder, save_trained
from hmi.training.reports.comparison import IMPORTED, AdapterComparison, RetrainReport
from hmi.training.reports.markdown import escape_markdown, markdown_table
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
    "word_counts",
    "word_metrics",
]
