"""How often n-grams are asked for, fading with time.

Forward decay (Cormode, Shkapenyuk, Srivastava and Xu, "Forward decay", ICDE 2009): a count at time t is
added as count * 2^((t - landmark) / half life), so that old rows need no touch and compare with new ones
as they stand. Before that factor outgrows a float, or when the half-life is set anew, all rows of the
base model are scaled once to a new landmark.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import change, clock, insert_or
from hmi.catalog.tables import BaseModel, Domain, NgramFrequency
from hmi.errors import NotFound

__all__ = ["DomainFrequencies", "add", "load", "trim"]

_CHUNK = 5_000  # rows per statement and per page read
_MAX_HALF_LIVES = 64.0  # 2^64 leaves a float room for every count; its smallest neighbours are noise by then


class DomainFrequencies(NamedTuple):
    """`ngrams` packed keys, uint64 [n] ascending; `weights` their decayed counts, float64 [n]."""

    ngrams: NDArray[np.uint64]
    weights: NDArray[np.float64]


def add(
    session: Session,
    base_id: str,
    domain_id: str,
    ngrams: ArrayLike,
    counts: ArrayLike,
    *,
    half_life_seconds: float,
    at: float | None = None,
) -> None:
    """Add counts of packed n-grams (int64 or uint64 [n], in any order, repeats are summed) asked for at `at`.

    `at` is Unix seconds, None for now. Rows are written in key order, so that two flushes queue and never
    lock each other out. Raises `NotFound`.
    """
    keys, places = np.unique(np.asarray(ngrams, dtype=np.int64), return_inverse=True)
    at = clock(session) if at is None else at
    landmark = _landmark(session, base_id, half_life_seconds, at)
    factor = 2.0 ** ((at - landmark) / half_life_seconds)
    weights = np.bincount(places, weights=np.asarray(counts, dtype=np.float64), minlength=len(keys)) * factor
    insert = insert_or(session, NgramFrequency)
    upsert = insert.on_conflict_do_update(
        index_elements=["base_id", "domain_id", "ngram"],
        set_={"weight": NgramFrequency.weight + insert.excluded.weight},
    )
    place = {"base_id": base_id, "domain_id": domain_id}
    connection = session.connection()
    for start in range(0, len(keys), _CHUNK):
        pairs = zip(keys[start : start + _CHUNK].tolist(), weights[start : start + _CHUNK].tolist(), strict=True)
        connection.execute(upsert, [{**place, "ngram": key, "weight": weight} for key, weight in pairs])


def load(
    session: Session, base_id: str, *, half_life_seconds: float, at: float | None = None
) -> dict[str, DomainFrequencies]:
    """What was counted for a base model, decayed to `at` (Unix seconds, None for now), by domain name."""
    base = session.get(BaseModel, base_id, populate_existing=True)
    if base is None or base.frequency_landmark is None:
        return {}
    at = clock(session) if at is None else at
    factor = 2.0 ** ((base.frequency_landmark - at) / (base.frequency_half_life or half_life_seconds))
    rows = session.execute(
        select(Domain.name, NgramFrequency.ngram, NgramFrequency.weight)
        .join(Domain, Domain.id == NgramFrequency.domain_id)
        .where(NgramFrequency.base_id == base_id)
        .order_by(Domain.name, NgramFrequency.ngram)
        .execution_options(yield_per=_CHUNK)
    )
    found = {}
    for domain, group in itertools.groupby(rows, key=lambda row: row[0]):
        pairs = np.fromiter(((row[1], row[2]) for row in group), dtype=[("ngram", np.uint64), ("weight", np.float64)])
        found[domain] = DomainFrequencies(pairs["ngram"].copy(), pairs["weight"] * factor)
    return found


def trim(session: Session, base_id: str, domain_id: str, max_rows: int) -> int:
    """Forget all but the `max_rows` n-grams of greatest weight; gives how many were forgotten."""
    of_domain = (NgramFrequency.base_id == base_id, NgramFrequency.domain_id == domain_id)
    lightest = (
        select(NgramFrequency.ngram)
        .where(*of_domain)
        .order_by(NgramFrequency.weight.desc(), NgramFrequency.ngram)
        .offset(max_rows)
    )
    return change(session, delete(NgramFrequency).where(*of_domain, NgramFrequency.ngram.in_(lightest)))


def _landmark(session: Session, base_id: str, half_life_seconds: float, at: float) -> float:
    """The landmark that weights are written against, moved first where it has to be; held to the commit."""
    columns = select(BaseModel.frequency_landmark, BaseModel.frequency_half_life).where(BaseModel.id == base_id)
    row = session.execute(columns).one_or_none()
    if row is None:
        raise NotFound(f"there is no base model {base_id}", code="base_not_found", param="base")
    if _is_usable(row[0], row[1], half_life_seconds, at):
        # Flushes go side by side, but none while the weights are being scaled.
        landmark, half_life = session.execute(columns.with_for_update(read=True)).one()
    else:
        landmark, half_life = session.execute(columns.with_for_update(key_share=True)).one()
    if landmark is not None and _is_usable(landmark, half_life, half_life_seconds, at):
        return landmark
    if landmark is not None and half_life is not None:
        factor = 2.0 ** ((landmark - at) / half_life)
        rows = update(NgramFrequency).where(NgramFrequency.base_id == base_id)
        change(session, rows.values(weight=NgramFrequency.weight * factor))
    clocks = {"frequency_landmark": at, "frequency_half_life": half_life_seconds}
    change(session, update(BaseModel).where(BaseModel.id == base_id).values(**clocks))
    return at


def _is_usable(landmark: float | None, half_life: float | None, half_life_seconds: float, at: float) -> bool:
    if landmark is None or half_life != half_life_seconds:
        return False
    return (at - landmark) / half_life_seconds <= _MAX_HALF_LIVES
