"""Who holds an n-gram that is asked for in a domain: as lookups would find it, without reading a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.lookup.ancestors import AncestorChain
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.store import (
    ALIASES_FILE,
    KEYS_FILE,
    MANIFEST_FILE,
    EncodedRows,
    Manifest,
    Table,
    code_dtype,
    map_array,
)

__all__ = ["KEY_FILES", "Holder", "KeyLocation", "find_holders", "open_keys"]

KEY_FILES = (MANIFEST_FILE, KEYS_FILE, ALIASES_FILE)
"""Files of a table that say what it holds: a hundredth of its bytes. The last is there only where it has aliases."""


class KeyLocation(StrEnum):
    """How a tree answers for an n-gram: with the domain's own row, with an ancestor's row of the same function, with
    one that an alias says is as good, or not at all."""

    OWN = "own"
    INHERITED = "inherited"
    ALIAS = "alias"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Holder:
    """`domain` is the one whose row is taken; None where there is none."""

    held: KeyLocation
    domain: str | None


def open_keys(folder: Path) -> Table:
    """A table whose rows are left on disk, wherever that is: good for finding keys, not for reading rows.

    Raises `Corrupt` as `Table.open` does.
    """
    manifest = Manifest.read(folder)
    meta, files = manifest.meta, manifest.files
    uint64 = np.dtype(np.uint64)
    keys = map_array(folder / KEYS_FILE, files[KEYS_FILE].bytes, uint64, (meta.entries,))
    aliases: Keys = np.empty(0, np.uint64)
    if meta.aliases:
        aliases = map_array(folder / ALIASES_FILE, files[ALIASES_FILE].bytes, uint64, (meta.aliases,))
    no_rows: NDArray[np.int8] = np.empty((0, meta.hidden_size), code_dtype(meta.row_dtype))
    return Table(folder, manifest, keys, EncodedRows(no_rows, None), aliases)


def find_holders(
    keys: Keys, line: Sequence[str], tables: Mapping[str, Table], functions: Mapping[str, str]
) -> list[Holder]:
    """For each key `[n]`, in any order, where a lookup in the line's first domain gets its row.

    Args:
        line: The domain, its parent, ..., the root.
        tables: By domain; one that is not of its domain's function is passed over, as lookups do.
        functions: Digest of each domain's function.
    """
    usable = {each: tables[each] for each in line if each in tables and tables[each].meta.function == functions[each]}
    walked = AncestorChain(line, usable, functions)
    place = walked.find(keys).table
    return [_holder(walked, functions, int(at)) for at in place]


def _holder(line: AncestorChain, functions: Mapping[str, str], place: int) -> Holder:
    if place < 0:
        return Holder(KeyLocation.MISSING, None)
    domain = line.domains[int(line.positions[place])]
    if domain == line.domains[0]:
        return Holder(KeyLocation.OWN, domain)
    same = functions[domain] == functions[line.domains[0]]
    return Holder(KeyLocation.INHERITED if same else KeyLocation.ALIAS, domain)
