"""Versions of a knowledge tree drawn for a terminal: what their builds did, and how far one is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from hmi.cli.render.basics import bytes_words
from hmi.cli.render.tree import ago, build_words, percent
from hmi.schemas import TreeProgress, TreeVersionObject

__all__ = ["BuildProgress", "version_lines", "versions_list"]

_SUMS = ("entries", "aliases", "added", "dropped", "hoisted", "copied", "computed", "bytes", "bytes_before")


def versions_list(versions: Iterable[TreeVersionObject], now: float | None = None) -> Group:
    """A few lines for each; the one that serves has a star."""
    return Group(*(line for each in versions for line in version_lines(each, now)))


def version_lines(version: TreeVersionObject, now: float | None = None) -> list[Text]:
    """What became of one version, and what its build did."""
    heading = Text.assemble(
        ("* " if version.served else "  "), (f"tree {version.number}", "bold" if version.served else ""), "  "
    )
    if version.status == "building":
        begun = ago(version.created_at, now)
        return [heading.append(f"building: begun {begun}, {build_words(version.progress)}", style="yellow")]
    if version.status == "failed":
        when = ago(version.created_at, now)
        return [heading.append(f"failed (begun {when}): {version.error or 'no reason is known'}", style="red")]
    if version.published_at is not None:
        heading.append(f"published {ago(version.published_at, now)}")
    if version.report.get("seconds") is not None:
        heading.append(f", built in {version.report['seconds']:,.1f} s")
    if version.served:
        heading.append("  serves", style="green")
    return [heading, *(Text(f"    {line}") for line in _report_lines(version))]


def _report_lines(version: TreeVersionObject) -> Iterable[str]:
    domains = version.report.get("domains", {})
    sums = {name: sum(int(each.get(name) or 0) for each in domains.values()) for name in _SUMS}
    if domains:
        yield ", ".join(f"{sums[what]:,} {what}" for what in ("added", "dropped", "hoisted", "copied", "computed"))
        aliases = f", {sums['aliases']:,} aliases" if sums["aliases"] else ""
        before = f"{bytes_words(sums['bytes_before'])} -> " if sums["bytes_before"] else ""
        yield f"{sums['entries']:,} n-grams{aliases}, {before}{bytes_words(sums['bytes'])}"
    yield f"hit rate {_rates(version)}"


def _rates(version: TreeVersionObject) -> str:
    predicted = (
        "not predicted" if version.predicted_hit_rate is None else f"{percent(version.predicted_hit_rate)} predicted"
    )
    if not version.lookups:
        return f"{predicted}, nothing was looked up yet"
    return f"{percent(version.hits, version.lookups)} of {version.lookups:,} lookups, {predicted}"


class BuildProgress(Progress):
    """A bar over the rows of a build's stages: `update_from` what the API says of it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[rows]}"),
            TimeRemainingColumn(compact=True),
            **options,
        )
        self._bar = self.add_task("waiting for a worker", total=None, rows="")
        self._stage = ""

    def update_from(self, progress: TreeProgress | None) -> None:
        """None where a build runs that has said nothing yet."""
        if progress is None:
            self.update(self._bar, description="just begun")
            return
        if progress.stage != self._stage:
            # The time that is left is that of the stage: rows of another one go at another pace.
            self._stage = progress.stage
            self.reset(self._bar)
        words = build_words(TreeProgress(stage=progress.stage))
        rows = f"{progress.done:,} of {progress.total:,} rows" if progress.total else ""
        self.update(self._bar, description=words, total=progress.total or None, completed=progress.done, rows=rows)
