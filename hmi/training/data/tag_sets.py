"""The labels of a tagger, from the tags and entities of its examples."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Set

from hmi.adapters import MAX_TOKEN_LABELS
from hmi.errors import InvalidInput
from hmi.models.text import BEGIN, INSIDE, OUTSIDE, is_bio
from hmi.training.data.examples import TaggedExample


def tags_and_names(examples: Iterable[TaggedExample]) -> tuple[set[str], set[str]]:
    """The tags of words and the names of entities in the examples."""
    tags: set[str] = set()
    names: set[str] = set()
    for example in examples:
        (names if example.entities else tags).update(span.label for span in example.spans)
    return tags, names


def unknown_to(labels: Collection[str], tags: Set[str], names: Set[str]) -> list[str]:
    """The tags and names that a tagger with these labels does not have, in alphabetical order."""
    entities = {label[len(BEGIN) :] for label in labels if label.startswith(BEGIN)} if is_bio(labels) else set()
    return sorted((tags - set(labels)) | (names - entities))


def tagger_labels(tags: Set[str], names: Set[str]) -> tuple[str, ...]:
    """`O` first, if it is a label, then the tags of words in alphabetical order; or `B-x` and `I-x` of every entity x.

    Raises `InvalidInput` for too few or too many labels, and if some examples have entities and others have tags that
    are not BIO.
    """
    inside = tags - {OUTSIDE}
    if not inside or is_bio(tags):
        names = names | {tag[len(BEGIN) :] for tag in inside}
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
