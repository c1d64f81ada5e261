"""The terminal output of the commands, with rich.

`tables` has workers, batches and jobs; `tree` and `ngrams` have knowledge trees. `progress` is the one way to show how
far a long command is: a bar on a terminal, a line every few seconds in a pipe or a log.
"""

from __future__ import annotations

from hmi.cli.render.ngrams import difference, top_ngrams
from hmi.cli.render.progress import ProgressBar, training_words
from hmi.cli.render.tables import (
    adapter_words,
    batch_table,
    bytes_words,
    fidelity_table,
    hit_rate,
    job_table,
    moment,
    residency,
    table,
    workload,
)
from hmi.cli.render.tree import domain_tree, knowledge_tree, related, versions_list

__all__ = [
    "ProgressBar",
    "adapter_words",
    "batch_table",
    "bytes_words",
    "difference",
    "domain_tree",
    "fidelity_table",
    "hit_rate",
    "job_table",
    "knowledge_tree",
    "moment",
    "related",
    "residency",
    "table",
    "top_ngrams",
    "training_words",
    "versions_list",
    "workload",
]
