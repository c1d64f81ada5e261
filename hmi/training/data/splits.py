"""Which examples are learnt from and which judge, decided by the text alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from hmi.errors import InvalidInput
from hmi.training.data.examples import AnyExample, TaggedExample, labels_in
from hmi.training.data.tag_sets import tagger_labels, tags_and_names, unknown_to

__all__ = ["require_known_labels", "split_dev", "split_train_dev_test", "without_texts"]

_FEWEST_JUDGES = 16  # fewer say nothing about which epoch is the best
_SALT = b"hmi dev part\n"  # who cut the text by its hash before must not find all of it on one side here


def split_dev(examples: Sequence[AnyExample], dev_share: float) -> tuple[list[AnyExample], list[AnyExample]]:
    """The part that is learnt from and the part that judges, about `dev_share` of all.

    A text that occurs twice is in one part only, and every label of the judging part is in the other one too. Where
    so few would judge that it would say little, none do.
    """
    learnt: list[AnyExample] = []
    judging: list[AnyExample] = []
    for example in examples:
        (judging if _place(example.text) < dev_share else learnt).append(example)
    known = {label for example in learnt for label in labels_in(example)}
    # An example goes with all others of its text.
    back = {example.text for example in judging if not known.issuperset(labels_in(example))}
    learnt += [example for example in judging if example.text in back]
    judging = [example for example in judging if example.text not in back]
    return (list(examples), []) if len(judging) < _FEWEST_JUDGES or not learnt else (learnt, judging)


def split_train_dev_test(
    examples: Sequence[AnyExample], dev: Sequence[AnyExample], share: float
) -> tuple[list[AnyExample], list[AnyExample], list[AnyExample]]:
    """What is learnt from, what chooses the epoch, and what only judges; no text is in two of them.

    The last is `dev` where that is given, the second and otherwise the last about `share` of the examples. Raises
    `InvalidInput` where there are too few to judge by.
    """
    if dev:
        others = without_texts(dev, examples)
        require_known_labels(dev, others)
        return *split_dev(others, share), list(dev)
    rest, judging = split_dev(examples, share)
    if not judging:
        raise InvalidInput(f"{len(examples)} examples are too few to keep some of them for judging; give a dev part")
    # The places of what is left begin where those of the judging part end.
    return *split_dev(rest, 2 * share), judging


def without_texts(judging: Sequence[AnyExample], examples: Sequence[AnyExample]) -> list[AnyExample]:
    """What is left to learn from beside a part that judges: text that was learnt says nothing about other text.

    Raises `InvalidInput` where nothing is.
    """
    judged = {example.text for example in judging}
    others = [example for example in examples if example.text not in judged]
    if not others:
        raise InvalidInput("every text of the training part is in the dev part too, so there is nothing to learn from")
    return others


def require_known_labels(judging: Sequence[AnyExample], learnt: Sequence[AnyExample]) -> None:
    """Raises `InvalidInput` for a judging part with a label that cannot be learnt: one that the head will not have."""
    tagged = [example for example in learnt if isinstance(example, TaggedExample)]
    if tagged:
        said = tags_and_names(example for example in judging if isinstance(example, TaggedExample))
        unknown = unknown_to(tagger_labels(*tags_and_names(tagged)), *said)
    else:
        known = {label for example in learnt for label in labels_in(example)}
        unknown = sorted({label for example in judging for label in labels_in(example)} - known)
    if unknown:
        raise InvalidInput(f"the dev part has a label that the training part lacks: {unknown[0]!r}")


def _place(text: str) -> float:
    """0..1, evenly."""
    return int.from_bytes(hashlib.sha256(_SALT + text.encode()).digest()[:8]) / 2**64
