"""Splitting examples into training and dev sets, by a hash of the text alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from hmi.errors import InvalidInput
from hmi.training.data.examples import AnyExample, TaggedExample, labels_in
from hmi.training.data.tag_sets import tagger_labels, tags_and_names, unknown_to

_FEWEST_DEV = 16  # fewer do not show which epoch is the best
_SALT = b"hmi dev part\n"  # text that was already split by its plain hash must not all land in one set


def split_dev(examples: Sequence[AnyExample], dev_share: float) -> tuple[list[AnyExample], list[AnyExample]]:
    """The training set, and a dev set of about `dev_share` of the examples; the dev set is empty if it would be tiny.

    A text that occurs twice is in one set only, and every label of the dev set is in the training set too.
    """
    train: list[AnyExample] = []
    dev: list[AnyExample] = []
    for example in examples:
        (dev if _place(example.text) < dev_share else train).append(example)
    known = {label for example in train for label in labels_in(example)}
    # An example moves with all others of its text.
    back = {example.text for example in dev if not known.issuperset(labels_in(example))}
    train += [example for example in dev if example.text in back]
    dev = [example for example in dev if example.text not in back]
    return (list(examples), []) if len(dev) < _FEWEST_DEV or not train else (train, dev)


def split_train_dev_test(
    examples: Sequence[AnyExample], dev: Sequence[AnyExample], share: float
) -> tuple[list[AnyExample], list[AnyExample], list[AnyExample]]:
    """Training, dev and test sets; no text is in two of them.

    The test set is `dev` if that is given. The dev set, and otherwise the test set, has about `share` of the examples.
    Raises `InvalidInput` if there are too few examples for a test set.
    """
    if dev:
        others = without_texts(dev, examples)
        require_known_labels(dev, others)
        return *split_dev(others, share), list(dev)
    rest, test = split_dev(examples, share)
    if not test:
        raise InvalidInput(f"{len(examples)} examples are too few to hold some out for evaluation; give a dev set")
    # The hashes of the rest begin where those of the test set end.
    return *split_dev(rest, 2 * share), test


def without_texts(dev: Sequence[AnyExample], examples: Sequence[AnyExample]) -> list[AnyExample]:
    """The examples without those whose text is in the dev set. Raises `InvalidInput` if none are left."""
    texts = {example.text for example in dev}
    others = [example for example in examples if example.text not in texts]
    if not others:
        raise InvalidInput("every text of the training set is in the dev set too, so there is nothing to learn from")
    return others


def require_known_labels(dev: Sequence[AnyExample], train: Sequence[AnyExample]) -> None:
    """Raises `InvalidInput` for a label of the dev set that the training set lacks."""
    tagged = [example for example in train if isinstance(example, TaggedExample)]
    if tagged:
        in_dev = tags_and_names(example for example in dev if isinstance(example, TaggedExample))
        unknown = unknown_to(tagger_labels(*tags_and_names(tagged)), *in_dev)
    else:
        known = {label for example in train for label in labels_in(example)}
        unknown = sorted({label for example in dev for label in labels_in(example)} - known)
    if unknown:
        raise InvalidInput(f"the dev set has a label that the training set lacks: {unknown[0]!r}")


def _place(text: str) -> float:
    """From 0 to 1, uniformly distributed over texts."""
    return int.from_bytes(hashlib.sha256(_SALT + text.encode()).digest()[:8]) / 2**64
