"""A base model with counted n-grams and published versions of its tree, for tests of the API."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from api.services import Services
from hmi.adapters import Activation, Adapter, AdapterKind, Lora
from hmi.adapters.formats import FILE_NAME, save_adapter
from hmi.catalog import NgramCounts, bases, deltas, domains, frequencies, trees
from hmi.knowledge import Keys, ancestor_chains, functions_of, pack
from hmi.knowledge.store import Table, TableMeta, encode, write_table
from hmi.spec import RowDtype, Site
from hmi.tenant_bits import PUBLIC
from tests.apis import SPEC, base_files

__all__ = ["BASE", "add_base", "count", "delta_file", "publish", "windows"]

BASE = "mini"
_FIRST_WORD = 4  # the tokenizer of `tests.apis`: [PAD] [UNK] [CLS] [SEP] w0 w1 ...


def add_base(services: Services) -> None:
    """The base model `mini`, its files included."""
    files = {name: io.BytesIO(data) for name, data in base_files().items()}
    artifact = services.artifacts.put(files)
    with services.database.session() as session:
        bases.register_base(session, BASE, artifact, SPEC)


def windows(*words: int) -> Keys:
    """The windows (w0, w, w1) of some words by number, ascending."""
    mid = np.array(sorted(words), np.int64) + _FIRST_WORD
    return pack(np.full_like(mid, _FIRST_WORD), mid, np.full_like(mid, _FIRST_WORD + 1))


def count(services: Services, domain: str, counts: Mapping[int, float], tenants: int = PUBLIC) -> None:
    """Count windows of words, by number; `tenants` is a bitmap."""
    with services.database.session() as session:
        base, place = bases.get_base(session, BASE), domains.get_domain(session, domain)
        words = sorted(counts)
        weights = [counts[word] for word in words]
        frequencies.add(
            session, [NgramCounts(base.id, place.id, windows(*words), weights, tenants)], half_life_seconds=1e9
        )


def publish(
    services: Services,
    held: Mapping[str, Sequence[int]],
    aliases: Mapping[str, Sequence[int]] | None = None,
    *,
    report: Mapping[str, Mapping[str, Any]] | None = None,
) -> int:
    """Publish a version whose tables hold windows of these words; return its number.

    Args:
        aliases: Words that a domain holds as aliases.
        report: More of each domain's report.
    """
    aliases = aliases or {}
    with services.database.session(read_only=True) as session:
        base, parents = bases.get_base(session, BASE), domains.parents(session)
        functions = functions_of(base.artifact, parents, deltas.delta_artifacts(session, base.id))
    lines = ancestor_chains(parents)
    tables, built = {}, {}
    for domain in parents:
        keys, alias_keys = windows(*held.get(domain, ())), windows(*aliases.get(domain, ()))
        own = functions[domain].digest
        above = next((functions[each].digest for each in lines[domain] if functions[each].digest != own), None)
        meta = TableMeta(
            domain, own, RowDtype.INT8, SPEC.hidden_size, len(keys), len(alias_keys), above if len(alias_keys) else None
        )
        with tempfile.TemporaryDirectory() as folder:
            rows = np.sin(keys.astype(np.float64)[:, None] + np.arange(SPEC.hidden_size)).astype(np.float32)
            write_table(Path(folder), meta, keys, encode(rows, RowDtype.INT8), alias_keys)
            size = Table.open(Path(folder)).bytes
            if len(keys) or len(alias_keys):
                tables[domain] = services.artifacts.put_folder(Path(folder))
        built[domain] = {"parent": parents[domain], "entries": len(keys), "aliases": len(alias_keys), "bytes": size}
        built[domain] |= {"function": own}
        built[domain] |= (report or {}).get(domain, {})
    with services.database.session() as session:
        number = trees.begin_build(session, base.id, 60)
        trees.publish(session, base.id, number, tables, {"seconds": 1.5, "min_tenants": 3, "domains": built})
    return number


def delta_file(folder: Path, layer: int = 0, seed: int = 0) -> Path:
    """A LoRA on a lower layer, in HMI's own form."""
    random = np.random.default_rng(seed)
    hidden = SPEC.hidden_size
    a, b = (random.normal(size=shape).astype(np.float32) for shape in ((2, hidden), (hidden, 2)))
    lora = {(layer, Site.Q): Lora(a=a, b=b)}
    delta = Adapter(AdapterKind.LORA, lora, {}, True, Activation.IDENTITY, None)
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(delta, folder / FILE_NAME)
    return folder / FILE_NAME
