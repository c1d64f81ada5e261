"""The threshold between gathered weights and segments that a set of measurements asks for."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from hmi.adapters.maths import Method, saved_bytes


@dataclass(frozen=True, slots=True)
class Case:
    """Medians of one shape, in microseconds, by way."""

    rank: int
    tokens: int
    rows: int
    tenants: int
    row_bytes: int
    microseconds: dict[Method, float]

    @property
    def spared_kib(self) -> float:
        return saved_bytes(self.rank, self.rows, self.tenants, self.row_bytes) / 1024

    def cost(self, method: Method) -> float:
        """As a multiple of the faster of gathered and segments."""
        return self.microseconds[method] / min(self.microseconds[each] for each in (Method.GATHERED, Method.SEGMENTS))


@dataclass(frozen=True, slots=True)
class Rule:
    """Where gathered ends and segments begin; None: there are no such cases."""

    gathered_to_kib: float | None
    segments_from_kib: float | None
    mean_cost: float
    worst_cost: float

    def rows_of_one(self, rank: int, row_bytes: int) -> int | None:
        """Rows of one tenant from which segments are chosen."""
        if self.segments_from_kib is None:
            return None
        return 1 + math.ceil(self.segments_from_kib * 1024 / (rank * row_bytes))


def derive(cases: Sequence[Case]) -> Rule:
    """The threshold that costs least on average."""
    spared = sorted({case.spared_kib for case in cases})

    def costs(gathered: int) -> list[float]:
        methods = dict.fromkeys(spared[:gathered], Method.GATHERED) | dict.fromkeys(spared[gathered:], Method.SEGMENTS)
        return [case.cost(methods[case.spared_kib]) for case in cases]

    best = min(range(len(spared) + 1), key=lambda gathered: statistics.fmean(costs(gathered)))
    found = costs(best)
    return Rule(
        gathered_to_kib=spared[best - 1] if best else None,
        segments_from_kib=spared[best] if best < len(spared) else None,
        mean_cost=round(statistics.fmean(found), 3),
        worst_cost=round(max(found), 3),
    )
