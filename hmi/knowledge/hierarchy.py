"""Domains and their parents: each domain's line of ancestors, up to the one root."""

from __future__ import annotations

from collections.abc import Mapping

from hmi.errors import Corrupt

__all__ = ["Parents", "children_of", "lines_of"]

Parents = Mapping[str, str | None]
"""A domain's name to its parent's; None for the root."""


def lines_of(parents: Parents) -> dict[str, tuple[str, ...]]:
    """Each domain's line: the domain itself first, its parent next, the root last.

    Raises `Corrupt` where the parents are no tree: one that is not there, a circle, two roots.
    """
    lines: dict[str, tuple[str, ...]] = {}
    for domain in parents:
        path: list[str] = []
        at: str | None = domain
        while at is not None and at not in lines:
            if at in path:
                raise Corrupt(f"domain {at} is its own ancestor: {' > '.join([*path[path.index(at) :], at])}")
            if at not in parents:
                raise Corrupt(f"domain {path[-1]} lies under {at}, which does not exist")
            path.append(at)
            at = parents[at]
        line = lines[at] if at is not None else ()
        for each in reversed(path):
            line = (each, *line)
            lines[each] = line
    roots = sorted({line[-1] for line in lines.values()})
    if len(roots) > 1:
        raise Corrupt(f"domains have more than one root: {', '.join(roots)}")
    return lines


def children_of(parents: Parents) -> dict[str, list[str]]:
    """Each domain's children, by name; an empty list for a leaf."""
    children: dict[str, list[str]] = {domain: [] for domain in parents}
    for domain in sorted(parents):
        parent = parents[domain]
        if parent is not None:
            children[parent].append(domain)
    return children
