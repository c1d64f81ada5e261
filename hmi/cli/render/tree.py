"""Knowledge trees: a row for each domain under its parent, and what each version's build did."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hmi.cli.render.progress import build_words
from hmi.cli.render.tables import bytes_words, moment
from hmi.schemas import DomainDiffObject, DomainTableObject, TreeObject, TreeVersionObject

_GOOD = 0.5


def ago(seconds: float, now: float | None = None) -> str:
    """The time since a moment in Unix seconds: `5 min ago`."""
    passed = max(0.0, (time.time() if now is None else now) - seconds)
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if passed >= 2 * size:
            return f"{passed / size:.0f} {unit} ago"
    return f"{passed:.0f} s ago"


def count_words(count: float) -> str:
    """A number in at most six characters: `12,345`, `123k`, `1.23M`."""
    if count < 99_999.5:
        return f"{count:,.0f}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)):
        scaled = count / size
        if scaled < 999.5:
            return f"{scaled:.3g}{unit}" if unit != "k" else f"{scaled:.0f}k"
    return f"{count:.0e}"


def percent(part: float, whole: float = 1.0, *, digits: int = 1) -> str:
    """`87.3%`; `-` of nothing."""
    return f"{100 * part / whole:.{digits}f}%" if whole else "-"


def domain_lines(parents: Mapping[str, str | None]) -> list[tuple[str, str | None]]:
    """Every domain with the branches before its name, in display order; None is the heading of several roots."""
    children: dict[str | None, list[str]] = {}
    for name in sorted(parents):
        parent = parents[name]
        children.setdefault(parent if parent in parents else None, []).append(name)
    roots = children.get(None, [])
    lines: list[tuple[str, str | None]] = []

    def draw(name: str, own: str, below: str) -> None:
        lines.append((own, name))
        draw_all(children.get(name, []), below)

    def draw_all(names: list[str], indent: str) -> None:
        for name in names:
            last = name == names[-1]
            draw(name, indent + ("└── " if last else "├── "), indent + ("    " if last else "│   "))

    if len(roots) == 1:
        draw(roots[0], "", "")
    else:
        lines.append(("", None))
        draw_all(roots, "")
    return lines


def domain_tree(parents: Mapping[str, str | None], notes: Mapping[str, str] = MappingProxyType({})) -> Text:
    """The domains under their parents, each with its note."""
    heading = "domains" if parents else "no domains"
    lines = (
        before + (heading if name is None else f"{name} ({notes[name]})" if name in notes else name)
        for before, name in domain_lines(parents)
    )
    return Text("\n".join(lines))


def related(tree: TreeObject, domain: str) -> TreeObject:
    """The tree with a domain, its ancestors and its descendants alone."""
    domains = tree.domains

    def line(name: str | None) -> list[str]:
        return [] if name is None or name not in domains else [name, *line(domains[name].parent)]

    kept = {name: each for name, each in domains.items() if domain in line(name) or name in line(domain)}
    return tree.model_copy(update={"domains": kept})


def knowledge_tree(tree: TreeObject, now: float | None = None) -> Group:
    """A base model's published tree: each domain's own table, and the hits of its lookups."""
    if tree.k == 0:
        return Group(Text.assemble((tree.base, "bold"), ": its k is 0, so there is no tree"))
    lines: list[Text | Table] = [Text.assemble((tree.base, "bold"), f": {_published(tree, now)}")]
    domains = tree.domains
    if tree.number:
        entries, aliases = (sum(getattr(each, what) for each in domains.values()) for what in ("entries", "aliases"))
        size = bytes_words(sum(each.bytes for each in domains.values()))
        lines.append(Text(f"{entries:,} n-grams{f', {aliases:,} aliases' if aliases else ''}, {size}"))
    if build := tree.building:
        begun = f"begun {ago(build.created_at, now)}: {build_words(build.progress)}"
        lines.append(Text(f"building tree {build.number}, {begun}", style="yellow"))
    if tree.requested is not None and (tree.building is None or tree.building.number < tree.requested):
        lines.append(Text(f"tree {tree.requested} is requested", style="yellow"))
    lines.append(domain_table(_COLUMNS, domains, _style))
    if stale := sorted(name for name, each in domains.items() if not each.usable):
        lines.append(
            Text(f"not used until the next rebuild, since deltas or parents changed: {', '.join(stale)}", "red")
        )
    return Group(*lines)


def _published(tree: TreeObject, now: float | None) -> str:
    if not tree.number:
        return "no tree is published yet"
    said = f"tree {tree.number}, published {moment(tree.published_at)}"
    if tree.published_at is not None:
        said += f", {ago(tree.published_at, now)}"
    return said + (" (rolled back)" if tree.rolled_back else "")


DomainT = TypeVar("DomainT", DomainTableObject, DomainDiffObject)
Column = tuple[str, Callable[[DomainT], str], Callable[[DomainT], object]]

# Heading, cell, and the figure that some domain must have for the column to be shown.
_COLUMNS: tuple[Column[DomainTableObject], ...] = (
    ("n-grams", lambda each: count_words(each.entries), lambda each: True),
    ("aliases", lambda each: count_words(each.aliases) if each.aliases else "-", lambda each: each.aliases),
    ("bytes", lambda each: bytes_words(each.bytes) if each.bytes else "-", lambda each: True),
    ("lookups", lambda each: count_words(each.lookups) if each.lookups else "-", lambda each: each.lookups),
    ("hit", lambda each: percent(each.hits, each.lookups), lambda each: each.lookups),
    (
        "pred.",
        lambda each: "-" if each.predicted_hit_rate is None else percent(each.predicted_hit_rate),
        lambda each: each.predicted_hit_rate is not None,
    ),
    ("own", lambda each: percent(each.hits - each.inherited, each.hits, digits=0), lambda each: each.hits),
    ("appr.", lambda each: percent(each.approximate, each.lookups, digits=0), lambda each: each.approximate),
    ("waiting", lambda each: count_words(each.waiting) if each.waiting else "-", lambda each: each.waiting),
    ("unknown", lambda each: count_words(each.unknown) if each.unknown else "-", lambda each: each.unknown),
    ("delta", lambda each: each.delta[:6] if each.delta else "-", lambda each: each.delta),
)


def domain_table(
    columns: Sequence[Column[DomainT]],
    domains: Mapping[str, DomainT],
    style: Callable[[str, DomainT], str] = lambda heading, each: "",
) -> Table:
    """A row per domain; it fits 80 columns with names of up to 18 characters, branches included."""
    shown = [column for column in columns if any(column[2](each) for each in domains.values())]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    table.add_column("domain", overflow="fold")
    for heading, _, _ in shown:
        table.add_column(heading, justify="right", no_wrap=True)
    for before, name in domain_lines({name: each.parent for name, each in domains.items()}):
        if name is None:
            table.add_row(Text("domains" if domains else "no domains"))
            continue
        each = domains[name]
        table.add_row(
            Text(before + name), *(Text(cell(each), style=style(heading, each)) for heading, cell, _ in shown)
        )
    return table


def _style(heading: str, domain: DomainTableObject) -> str:
    if heading != "hit" or not domain.lookups:
        return ""
    return "green" if domain.hits > _GOOD * domain.lookups else "yellow"


_SUMS = (
    *("entries", "aliases", "added", "dropped", "hoisted", "copied", "computed", "bytes", "bytes_before"),
    *("waiting", "unknown"),
)


def versions_list(versions: Iterable[TreeVersionObject], now: float | None = None) -> Group:
    """A few lines per version; a star is beside the one that serves."""
    return Group(*(line for each in versions for line in version_lines(each, now)))


def version_lines(version: TreeVersionObject, now: float | None = None) -> list[Text]:
    """The state of one version, and the figures of its build."""
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
    if sums["waiting"]:
        yield f"{sums['waiting']:,} n-grams wait for more tenants"
    if sums["unknown"]:
        yield f"{sums['unknown']:,} n-grams are left out: it is not known who asked (hmi tree declare-public)"
    yield f"hit rate {_rates(version)}"


def _rates(version: TreeVersionObject) -> str:
    predicted = (
        "not predicted" if version.predicted_hit_rate is None else f"{percent(version.predicted_hit_rate)} predicted"
    )
    if not version.lookups:
        return f"{predicted}, nothing was looked up yet"
    return f"{percent(version.hits, version.lookups)} of {version.lookups:,} lookups, {predicted}"
