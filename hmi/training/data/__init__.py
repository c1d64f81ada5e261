"""Labelled text for training: files to examples, checks, and the split into training and dev sets. Needs no torch.

`read_labelled` and `check_labelled` read JSON lines or CSV; the fields of a line decide the task and the type of
example (`examples.py`). The API checks uploaded files with it.
"""

from __future__ import annotations

from hmi.training.data.examples import (
    AnyExample,
    ChatExample,
    CompletionExample,
    Example,
    MultiLabelExample,
    PairExample,
    Span,
    TaggedExample,
    kind_of,
    labels_in,
    require_learnable,
    texts_of,
)
from hmi.training.data.labelled import CheckedFile, LabelledFile, check_labelled, read_labelled
from hmi.training.data.reader import LabelledLimits
from hmi.training.data.records import FileFormat
from hmi.training.data.splits import require_known_labels, split_dev, split_train_dev_test, without_texts
from hmi.training.data.tag_sets import tagger_labels, tags_and_names

__all__ = [
    "AnyExample",
    "ChatExample",
    "CheckedFile",
    "CompletionExample",
    "Example",
    "FileFormat",
    "LabelledFile",
    "LabelledLimits",
    "MultiLabelExample",
    "PairExample",
    "Span",
    "TaggedExample",
    "check_labelled",
    "kind_of",
    "labels_in",
    "read_labelled",
    "require_known_labels",
    "require_learnable",
    "split_dev",
    "split_train_dev_test",
    "tagger_labels",
    "tags_and_names",
    "texts_of",
    "without_texts",
]
