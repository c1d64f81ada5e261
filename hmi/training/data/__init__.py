"""TODO"""

from __future__ import annotations

from hmi.training.data.examples import (
    AnyExample,
    ChatExample,
    ContinuedExample,
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
from hmi.training.data.labelled import Checked, FileFormat, Labelled, LabelledLimits, check_labelled, read_labelled
from hmi.training.data.splits import require_known, split, split_in_three, without_texts_of
from hmi.training.data.tag_sets import said_of, word_labels

__all__ = [
    "AnyExample",
    "ChatExample",
    "Checked",
    "ContinuedExample",
    "Example",
    "FileFormat",
    "Labelled",
    "LabelledLimits",
    "MultiLabelExample",
    "PairExample",
    "Span",
    "TaggedExample",
    "check_labelled",
    "kind_of",
    "labels_in",
    "read_labelled",
    "require_known",
    "require_learnable",
    "said_of",
    "split",
    "split_in_three",
    "texts_of",
    "without_texts_of",
    "word_labels",
]
