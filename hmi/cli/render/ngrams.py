"""N-grams of knowledge trees: the most frequent ones, and those in which two versions differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hmi.cli.render.tables import bytes_words
from hmi.cli.render.tree import Column, count_words, domain_table
from hmi.schemas import DomainDiffObject, NgramObject, NgramPage, NgramText, TreeDiffObject

_STYLES = {"missing": "red", "own": "green"}


def readable(text: str) -> str:
    """Untrusted text on one line: characters that cannot be printed are written as escapes."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def top_ngrams(page: NgramPage) -> Group:
    """Each n-gram with its count and its place in the published tree."""
    tree = f"tree {page.number}" if page.number else "no tree is published"
    heading = Text.assemble((page.domain, "bold"), f" on {page.base}: {page.ngrams:,} n-grams, {tree}")
    others = (
        f"\n{page.waiting:,} others wait for more tenants" if page.waiting else "",
        f"\nof {page.unknown:,} others it is not known who asked" if page.unknown else "",
    )
    heading.append("".join(others), "dim")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("n-gram", overflow="fold")
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("in the tree", overflow="fold")
    for each in page.data:
        table.add_row(
            Text(readable(each.text)), Text(f"{each.count:,.1f}"), Text(_held(each), _STYLES.get(each.held, ""))
        )
    return Group(heading, table)


def difference(found: TreeDiffObject) -> Group:
    """A line per domain, then the heaviest n-grams."""
    heading = Text.assemble((found.base, "bold"), f": tree {found.before} -> tree {found.after}")
    return Group(heading, domain_table(_COLUMNS, found.domains), *_heaviest(found))


def _some(count: int) -> str:
    return count_words(count) if count else "-"


def _counts(before: int, after: int) -> str:
    """`31.3k→168k`; a count that did not change appears once, exactly."""
    return count_words(after) if before == after else f"{_short(before)}→{_short(after)}"


def _short(count: int) -> str:
    return f"{count / 1000:.1f}k" if 1000 <= count < 99_950 else count_words(count)


def _sizes(before: int, after: int) -> str:
    """`1.0→1.5 MB`; a size that did not change appears once."""
    first, second = bytes_words(before), bytes_words(after)
    if first == second:
        return second
    number, _, unit = first.partition(" ")
    return f"{number if not before or unit == second.partition(' ')[2] else first}→{second}"


# Heading, cell, and the figure that some domain must have for the column to be shown.
_COLUMNS: tuple[Column[DomainDiffObject], ...] = (
    ("added", lambda each: _some(each.added), lambda each: True),
    ("dropped", lambda each: _some(each.dropped), lambda each: each.dropped),
    ("in", lambda each: _some(each.moved_in), lambda each: each.moved_in),
    ("out", lambda each: _some(each.moved_out), lambda each: each.moved_out),
    ("n-grams", lambda each: _counts(each.entries_before, each.entries_after), lambda each: True),
    (
        "aliases",
        lambda each: _counts(each.aliases_before, each.aliases_after),
        lambda each: each.aliases_before or each.aliases_after,
    ),
    ("bytes", lambda each: _sizes(each.bytes_before, each.bytes_after), lambda each: True),
)


def _heaviest(found: TreeDiffObject) -> Iterator[Text]:
    for name in sorted(found.domains):
        each = found.domains[name]
        for what, style, shown, count in (
            ("added", "green", each.heaviest_added, each.added),
            ("dropped", "red", each.heaviest_dropped, each.dropped),
        ):
            if shown:
                most = f", the heaviest {len(shown)}" if len(shown) < count else ""
                yield Text.assemble("\n", (name, "bold"), f": {count:,} {what}{most}")
                yield from _texts(shown, style)


def _texts(ngrams: Sequence[NgramText], style: str) -> Iterator[Text]:
    width = max(len(f"{each.count:,.1f}") for each in ngrams)
    for each in ngrams:
        yield Text.assemble(f"  {each.count:>{width},.1f}  ", (readable(each.text), style))


def _held(ngram: NgramObject) -> str:
    if ngram.held == "own":
        return "own row"
    if ngram.held == "inherited":
        return f"inherited from {ngram.holder}"
    if ngram.held == "alias":
        return f"alias of {ngram.holder}"
    return ngram.held
