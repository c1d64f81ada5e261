"""Waiting for a rebuild that was asked for, with its progress on the terminal."""

from __future__ import annotations

import time

from rich.console import Console

from hmi.cli.client import HmiClient, TreeVersion
from hmi.cli.render import BuildProgress
from hmi.errors import HmiError, Transient

__all__ = ["follow", "last_ended"]

_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 60  # an API that is started again is back sooner


def last_ended(client: HmiClient, base: str) -> int:
    """Number of the newest version of which the build has ended, 0 for none; a later one is what `follow` waits for."""
    return max((each.number for each in client.tree_versions(base) if each.status != "building"), default=0)


def follow(client: HmiClient, base: str, last: int, timeout_seconds: float) -> TreeVersion:
    """The version after `last` once it is published. An API that does not answer for a while is waited for.

    Raises `HmiError` (code `rebuild_failed`) where its build failed, `Transient` after `timeout_seconds`.
    """
    deadline = heard = time.monotonic()
    deadline += timeout_seconds
    with BuildProgress(console=Console(stderr=True)) as progress:
        while time.monotonic() < deadline:
            try:
                newer = [each for each in client.tree_versions(base) if each.number > last]
                heard = time.monotonic()
            except HmiError as error:
                if not error.retryable or time.monotonic() - heard > _PATIENCE_SECONDS:
                    raise
                newer = []
            if newer:
                newest = max(newer, key=lambda each: each.number)
                if newest.status == "ready":
                    return newest
                if newest.status == "failed":
                    raise HmiError(f"the rebuild of {base}'s tree failed: {newest.error}", code="rebuild_failed")
                progress.update_from(newest.progress)
            time.sleep(_POLL_SECONDS)
    raise Transient(f"no new tree of {base} was published within {timeout_seconds:g} s; does a worker run?")
