"""The knowledge tree of the demonstration: counts, rebuilds and hit rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from examples.demo.steps import Steps
from examples.demo.tenants import LOOKED_UP
from hmi.cli.client import HmiClient
from hmi.cli.render import ProgressBar
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

    def __init__(self, client: HmiClient, steps: Steps) -> None:
        self._client = client
        self._steps = steps
        self._artifact = next(base.artifact for base in client.bases() if base.name == LOOKED_UP)

    def read(self) -> TreeObject:
        return self._client.tree(LOOKED_UP)

    @property
    def number(self) -> int:
        """Of the published version; 0 before the first."""
        return self.read().number or 0

    def count(self, domain: str, texts: Sequence[str]) -> None:
        for start in range(0, len(texts), _TEXTS_PER_CALL):
            self._client.count_text(LOOKED_UP, domain, texts[start : start + _TEXTS_PER_CALL])

    def rebuild(self) -> TreeObject:
        """Build a new version and wait until the worker looks up in it.

        Raises `HmiError` (code `rebuild_failed`) with the reason.
        """
        requested = self._client.rebuild_tree(LOOKED_UP).number
        tree = self.read()

        def is_published() -> bool:
            nonlocal tree
            tree = self.read()
            if tree.requested is None and (tree.number or 0) < requested:
                versions = self._client.tree_versions(LOOKED_UP)
                reason = next((each.error for each in versions if each.status == "failed"), "the request was closed")
                raise HmiError(f"the rebuild failed: {reason}", code="rebuild_failed")
            return (tree.number or 0) >= requested

        def show(bar: ProgressBar) -> None:
            bar.show_build(tree.building.progress if tree.building else None)

        self._steps.wait(is_published, _REBUILD_SECONDS, what="tree", unit="rows", show=show)
        self.settle()
        return self.read()

    def settle(self) -> int:
        """Wait until the worker looks up in the published version, and return its number."""
        self._steps.wait(lambda: self._is_used(self.number), _USE_SECONDS, what="the worker's switch to the new tree")
        return self.number

    def hits(self) -> dict[str, HitRate]:
        """The lookups in the published version so far, by domain."""
        return {name: HitRate(each.lookups, each.hits) for name, each in self.read().domains.items()}

    def hits_since(self, number: int, before: Mapping[str, HitRate], lookups: int) -> dict[str, HitRate]:
        """Wait until the worker has reported `lookups` lookups since `before`, and return them by domain.

        Raises `HmiError` (code `tree_replaced`) if version `number` was replaced meanwhile: its counts are gone.
        """
        found: dict[str, HitRate] = {}

        def is_complete() -> bool:
            found.clear()
            for name, now in self.hits().items():
                old = before.get(name, HitRate(0, 0))
                if now.lookups > old.lookups:
                    found[name] = HitRate(now.lookups - old.lookups, now.hits - old.hits)
            if self.number != number:
                raise HmiError("the knowledge tree was replaced during the batch", code="tree_replaced")
            return sum(rate.lookups for rate in found.values()) >= lookups

        self._steps.wait(is_complete, _COUNTS_SECONDS, what="the worker's counts of lookups")
        return found

    def _is_used(self, number: int) -> bool:
        """Whether every worker that has loaded this base model looks up in version `number` or a later one."""
        used = [
            tree["number"]
            for node in self._client.nodes()
            for tree in node.stats.get("trees", ())
            if tree["base"] == self._artifact
        ]
        return bool(used) and all(each >= number for each in used)
