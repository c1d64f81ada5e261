"""One batch or job for a request that a client sends twice.

A client names its request with `Idempotency-Key`. The official `openai` client repeats a request that timed out without
a key; then a request that is equal to one of the last ten minutes is taken for its repetition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Header
from sqlalchemy.orm import Session

from hmi.catalog import database_time
from hmi.errors import InvalidInput

_REPEATED_WITHIN_SECONDS = 600
_PAGE = 100

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]
RetryCount = Annotated[int, Header(alias="x-stainless-retry-count", ge=0, le=1000, include_in_schema=False)]

ItemT = TypeVar("ItemT")


def digest_of(key: str | None) -> str | None:
    """What is kept of an `Idempotency-Key`."""
    return None if key is None else hashlib.sha256(key.encode()).hexdigest()


def find_recent(
    session: Session,
    list_page: Callable[[str | None, int], Any],
    created: Callable[[ItemT], tuple[float, str]],
    is_same: Callable[[ItemT], bool],
) -> ItemT | None:
    """The newest item of the last ten minutes that the same request could have made.

    `list_page(after, limit)` lists the tenant's items, newest first; `created` returns an item's time and id.
    """
    since, after = database_time(session) - _REPEATED_WITHIN_SECONDS, None
    while True:
        page = list_page(after, _PAGE)
        for item in page.items:
            if created(item)[0] < since:
                return None
            if is_same(item):
                found: ItemT = item
                return found
        if not page.has_more:
            return None
        after = created(page.items[-1])[1]


def require_same(is_same: bool, kind: str) -> None:
    """Raises `InvalidInput` where a key led to an item that was made by another request."""
    if not is_same:
        message = f"this Idempotency-Key was used for another {kind}"
        raise InvalidInput(message, code="idempotency_key_reused", param="Idempotency-Key")
