"""A domain's line cut where the function changes: within a segment rows stand in for one another, beyond it only where
a mark says so."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

__all__ = ["level_of", "segment_of"]


def segment_of(line: Sequence[str], functions: Mapping[str, str]) -> tuple[tuple[str, ...], str | None]:
    """The domains from the line's first upwards that share its function, and the domain above them; None for no more.

    Args:
        line: The domain, its parent, ..., the root.
        functions: Digest of each domain's function.
    """
    own = functions[line[0]]
    for place, domain in enumerate(line):
        if functions[domain] != own:
            return tuple(line[:place]), domain
    return tuple(line), None


def level_of(line: Sequence[str], functions: Mapping[str, str]) -> int:
    """How often the function changes between the domain and the root."""
    return sum(functions[one] != functions[other] for one, other in itertools.pairwise(line))
