"""Waiting for a requested rebuild, with its progress on the terminal."""

from __future__ import annotations

import time

from rich.console import Console

from hmi.cli.client import HmiClient
from hmi.cli.render import BuildProgress
from hmi.errors import HmiError, Transient
from hmi.schemas import RebuildRequested, TreeVersionObject

__all__ = ["follow"]

_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 60  # an API that is started again is back sooner


def follow(client: HmiClient, requested: RebuildRequested, timeout_seconds: float) -> TreeVersionObject:
    """Return the version that answers the request, or a later one, once it is published.

    An API that does not answer for a while is retried. A build that fails is reported; the request may be answered by
    the next one.

    Raises `HmiError` (code `rebuild_failed`) where the request was closed without a version, `Transient` after
    `timeout_seconds`.
    """
    base, failed = requested.base, set[int]()
    deadline = answered = time.monotonic()
    deadline += timeout_seconds
    with BuildProgress(console=Console(stderr=True)) as progress:
        while time.monotonic() < deadline:
            try:
                # In this order: the request is closed in the transaction that publishes its version.
                tree, versions = client.tree(base), client.tree_versions(base)
            except HmiError as error:
                if not error.retryable or time.monotonic() - answered > _PATIENCE_SECONDS:
                    raise
                time.sleep(_POLL_SECONDS)
                continue
            answered = time.monotonic()
            newer = [each for each in versions if each.number >= requested.number]  # newest first
            ready = next((each for each in newer if each.status == "ready"), None)
            if ready is not None:
                return ready
            building = next((each for each in versions if each.status == "building"), None)
            if tree.requested is None and building not in newer:
                reason = newer[0].error if newer else "the tree was rolled back, which closed the request"
                raise HmiError(f"the rebuild of {base}'s tree failed: {reason}", code="rebuild_failed")
            for each in reversed(newer):
                if each.status == "failed" and each.number not in failed:
                    failed.add(each.number)
                    progress.console.print(f"tree {each.number} failed: {each.error}; another build follows")
            if building is not None:
                progress.update_from(building.progress)
            time.sleep(_POLL_SECONDS)
    raise Transient(
        f"tree {requested.number} of {base} was not published within {timeout_seconds:g} s; does a worker run?"
    )
