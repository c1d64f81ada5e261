"""Counting text for the knowledge tree, rebuilding it, and reading how often lookups hit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from examples.demo.tenants import LOOKED_UP
from examples.demo.waiting import Patience
from hmi.cli.client import HmiClient
from hmi.errors import HmiError
from hmi.schemas import TreeObject

__all__ = ["HitRate", "TreeWatch"]

_TEXTS_PER_CALL = 1000
_REBUILD_SECONDS = 900
_USE_SECONDS = 120
_COUNTS_SECONDS = 120


@dataclass(frozen=True, slots=True)
class HitRate:
    lookups: int
    hits: int

    @property
    def share(self) -> float:
        return self.hits / self.lookups if self.lookups else 0.0


class TreeWatch:
    """The knowledge tree of the base model whose layers are looked up."""

    def __init__(self, client: HmiClient, patience: Patience) -> None:
        self._client = client
        self._patience = patience
        self._artifact = next(base.artifact for base in client.bases() if base.name == LOOKED_UP)

    def read(self) -> TreeObject:
        return self._client.trees(LOOKED_UP)[0]

    @property
    def number(self) -> int:
        """Of the published version; 0 before the first."""
        return self.read().number or 0

    def count(self, domain: str, texts: Sequence[str]) -> None:
        for start in range(0, len(texts), _TEXTS_PER_CALL):
            self._client.count_text(LOOKED_UP, domain, texts[start : start + _TEXTS_PER_CALL])

    def rebuild(self) -> TreeObject:
        """Have a new version built and wait until the worker looks up in it.

        Raises `HmiError` (code `rebuild_failed`) with the reason where it fails.
        """
        requested = self._client.rebuild_tree(LOOKED_UP).number

        def is_published() -> bool:
            tree = self.read()
            if tree.requested is None and (tree.number or 0) < requested:
                versions = self._client.tree_versions(LOOKED_UP)
                reason = next((each.error for each in versions if each.status == "failed"), "the request was closed")
                raise HmiError(f"the rebuild failed: {reason}", code="rebuild_failed")
            return (tree.number or 0) >= requested

        self._patience.wait(is_published, _REBUILD_SECONDS, what="the rebuild of the knowledge tree")
        self.settle()
        return self.read()

    def settle(self) -> int:
        """Wait until the worker looks up in the published version; its number."""
        self._patience.wait(
            lambda: self._is_used(self.number), _USE_SECONDS, what="taking the new knowledge tree into use"
        )
        return self.number

    def hits(self) -> dict[str, HitRate]:
        """What lookups in the published version found so far, by domain."""
        return {name: HitRate(each.lookups, each.hits) for name, each in self.read().domains.items()}

    def hits_since(self, number: int, before: Mapping[str, HitRate], lookups: int) -> dict[str, HitRate] | None:
        """What was found since `before`, as soon as the worker has handed in its counts of `lookups` lookups.

        None where version `number` was replaced meanwhile, by a periodic rebuild: its counts are gone with it.
        """
        found: dict[str, HitRate] = {}

        def is_complete() -> bool:
            found.clear()
            for name, now in self.hits().items():
                old = before.get(name, HitRate(0, 0))
                if now.lookups > old.lookups:
                    found[name] = HitRate(now.lookups - old.lookups, now.hits - old.hits)
            return self.number != number or sum(rate.lookups for rate in found.values()) >= lookups

        self._patience.wait(is_complete, _COUNTS_SECONDS, what="handing in the counts of lookups")
        return found if self.number == number else None

    def _is_used(self, number: int) -> bool:
        """Every worker that has this base model loaded looks up in version `number`."""
        used = [
            tree["number"]
            for node in self._client.nodes()
            for tree in node.stats.get("trees", ())
            if tree["base"] == self._artifact
        ]
        return bool(used) and all(each >= number for each in used)
