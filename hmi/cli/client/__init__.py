"""TODO"""

from __future__ import annotations

from hmi.cli.client import answers
from hmi.cli.client.answers import Answer, Batch, Delta, Node
from hmi.cli.client.client import HmiClient
from hmi.cli.client.datafolder import DataFolder, Running
from hmi.cli.client.tree_answers import (
    DomainDifference,
    DomainTable,
    Ngram,
    NgramPage,
    NgramText,
    Rebuild,
    Tree,
    TreeBuild,
    TreeDiff,
    TreeProgress,
    TreeVersion,
)
from hmi.cli.client.tuning_answers import TuningJob

__all__ = [
    "Answer",
    "Batch",
    "DataFolder",
    "Delta",
    "DomainDifference",
    "DomainTable",
    "HmiClient",
    "Ngram",
    "NgramPage",
    "NgramText",
    "Node",
    "Rebuild",
    "Running",
    "Tree",
    "TreeBuild",
    "TreeDiff",
    "TreeProgress",
    "TreeVersion",
    "TuningJob",
    "answers",
]
