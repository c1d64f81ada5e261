"""What computes a domain's rows: the base model's lower layers, with the nearest delta on its line of ancestors.

Rows of different functions never stand in for one another, but where a table says so (a mark, see `table`).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from hmi.knowledge.hierarchy import Parents, lines_of

__all__ = ["Function", "functions_of"]


@dataclass(frozen=True, slots=True)
class Function:
    """Base lower layers, changed by a domain delta or not.

    Attributes:
        base: Artifact digest of the base model.
        delta: Artifact digest of the domain delta (a LoRA on the lower layers); None for the base as it is.
    """

    base: str
    delta: str | None = None

    @property
    def digest(self) -> str:
        """Names the function in tables: the base's own digest where there is no delta."""
        return _digest(self.base, self.delta)


def functions_of(base: str, parents: Parents, deltas: Mapping[str, str]) -> dict[str, Function]:
    """Each domain's function.

    Args:
        base: Artifact digest of the base model.
        deltas: Artifact digest of the delta of each domain that has one of its own.

    Raises `Corrupt` where the parents are no tree.
    """
    lines = lines_of(parents)
    return {
        domain: Function(base, next((deltas[each] for each in line if each in deltas), None))
        for domain, line in lines.items()
    }


@functools.lru_cache(maxsize=4096)
def _digest(base: str, delta: str | None) -> str:
    return base if delta is None else hashlib.sha256(f"{base}\n{delta}".encode()).hexdigest()
