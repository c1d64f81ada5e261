"""The labels that a tagger of words has, from what its examples say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Set

from hmi.adapters import MAX_TOKEN_LABELS
from hmi.errors import InvalidInput
from hmi.models.text import BEGIN, INSIDE, OUTSIDE, is_bio
from hmi.training.data.examples import TaggedExample

__all__ = ["tagger_labels", "tags_and_names", "unknown_to"]


def tags_and_names(examples: Iterable[TaggedExample]) -> tuple[set[str], set[str]]:
    """The tags of words, and the names of parts of texts, as the examples have them."""
    tags: set[str] = set()
    names: set[str] = set()
    for example in examples:
        (names if example.entities else tags).update(span.label for span in example.spans)
    return tags, names


def unknown_to(labels: Collection[str], tags: Set[str], names: Set[str]) -> list[str]:
    """Of such tags and names those that a tagger with these labels never says, in alphabetical order."""
    parts = {label[len(BEGIN) :] for label in labels if label.startswith(BEGIN)} if is_bio(labels) else set()
    return sorted((tags - set(labels)) | (names - parts))


def tagger_labels(tags: Set[str], names: Set[str]) -> tuple[str, ...]:
    """`O` first where nothing is a label too, then in alphabetical order; of named parts `B-x` and `I-x` for each x.

    Args:
        tags: Of words that were tagged one by one.
        names: Of parts of texts.

    Raises `InvalidInput` where there is nothing to tell apart, or too much, or where some examples name parts and
    others tag words in a form that names none.
    """
    told = tags - {OUTSIDE}
    if not told or is_bio(tags):
        names = names | {tag[len(BEGIN) :] for tag in told}
        if not names:
            raise InvalidInput("no example has a labelled word")
        labels = (OUTSIDE, *(f"{mark}{name}" for name in sorted(names) for mark in (BEGIN, INSIDE)))
    elif names:
        raise InvalidInput(
            "some examples name parts of the text, and others tag words by something else than B-, I- and O"
        )
    else:
        labels = tuple(sorted(tags, key=lambda tag: (tag != OUTSIDE, tag)))
    if len(labels) < 2:
        raise InvalidInput(f"a tagger needs at least two tags; only {labels[0]!r} is there")
    if len(labels) > MAX_TOKEN_LABELS:
        raise InvalidInput(f"words can have at most {MAX_TOKEN_LABELS} labels, and these examples make {len(labels)}")
    return labels
