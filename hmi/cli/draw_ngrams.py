"""N-grams of knowledge trees drawn for a terminal: the most frequent ones, and those that two versions differ in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hmi.cli.draw import bytes_words
from hmi.cli.draw_tree import count_words, domain_lines
from hmi.cli.tree_answers import Difference, DomainDifference, Ngram, NgramPage, NgramText

__all__ = ["difference", "readable", "top_ngrams"]

_STYLES = {"missing": "red", "own": "green"}


def readable(text: str) -> str:
    """Text of a stranger on one line: what is no letter, digit, sign or blank is written as an escape."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def top_ngrams(page: NgramPage) -> Group:
    """Each n-gram with its count and where the published tree has it."""
    tree = f"tree {page.number}" if page.number else "no tree is published"
    heading = Text.assemble((page.domain, "bold"), f" on {page.base}: {page.ngrams:,} n-grams counted, {tree}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("n-gram", overflow="fold")
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("in the tree", overflow="fold")
    for each in page.data:
        table.add_row(
            Text(readable(each.text)), Text(f"{each.count:,.1f}"), Text(_held(each), _STYLES.get(each.held, ""))
        )
    return Group(heading, table)


def difference(found: Difference) -> Group:
    """A line for each domain, then the n-grams that weigh most."""
    domains = found.domains
    heading = Text.assemble((found.base, "bold"), f": tree {found.before} -> tree {found.after}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    table.add_column("domain", overflow="fold")
    has_marks = any(each.marks_before or each.marks_after for each in domains.values())
    for name in ("added", "dropped", "in", "out", "n-grams", *(["marks"] if has_marks else []), "bytes"):
        table.add_column(name, justify="right", no_wrap=True)
    for before, domain in domain_lines({name: each.parent for name, each in domains.items()}):
        if domain is None:
            table.add_row(Text("domains" if domains else "no domains"))
        else:
            table.add_row(Text(before + domain), *map(Text, _cells(domains[domain], has_marks)))
    return Group(heading, table, *_heaviest(found))


def _cells(each: DomainDifference, has_marks: bool) -> Iterator[str]:
    yield from (count_words(count) if count else "-" for count in (each.added, each.dropped))
    yield from (count_words(count) if count else "-" for count in (each.moved_in, each.moved_out))
    yield _change(count_words(each.entries_before), count_words(each.entries_after))
    if has_marks:
        yield _change(count_words(each.marks_before), count_words(each.marks_after))
    yield _change(bytes_words(each.bytes_before), bytes_words(each.bytes_after))


def _change(before: str, after: str) -> str:
    return after if before == after else f"{before}→{after}"


def _heaviest(found: Difference) -> Iterator[Text]:
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


def _held(ngram: Ngram) -> str:
    if ngram.held == "own":
        return "own row"
    if ngram.held == "inherited":
        return f"inherited from {ngram.holder}"
    if ngram.held == "mark":
        return f"mark: as {ngram.holder}"
    return ngram.held
