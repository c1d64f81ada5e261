"""The diff of two trees as the API shows it: numbers, and the n-grams with the most lookups as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from api.services import Services
from api.trees.ngram_text import NgramReader
from hmi.catalog import Audience, DomainView, RegisteredBase, domains, frequencies
from hmi.knowledge import Parents, ancestor_chains
from hmi.knowledge.counts import SharingRule
from hmi.knowledge.lookup import TreeDiff, WeightedKeys
from hmi.schemas import DomainDiffObject, NgramText
from hmi.tenant_bits import PUBLIC


def describe(
    services: Services, base: RegisteredBase, differences: TreeDiff, parents: Parents, limit: int
) -> dict[str, DomainDiffObject]:
    """The diffs by domain, each with up to `limit` n-grams of each kind as text; 0 reads no counts.

    `parents` are those of the later version. Raises `Corrupt` where the base model's tokenizer is lost.
    """
    added = {domain: WeightedKeys(each.added) for domain, each in differences.items()}
    dropped = {domain: WeightedKeys(each.dropped) for domain, each in differences.items()}
    reader = None
    if limit and any(len(each.added) or len(each.dropped) for each in differences.values()):
        _count(services, base, parents, (added, dropped))
        reader = NgramReader(services.tokenizer(base.artifact))
    return {
        domain: DomainDiffObject(
            parent=parents.get(domain),
            entries_before=each.before.entries,
            entries_after=each.after.entries,
            aliases_before=each.before.aliases,
            aliases_after=each.after.aliases,
            bytes_before=each.before.bytes,
            bytes_after=each.after.bytes,
            added=len(each.added),
            dropped=len(each.dropped),
            moved_in=each.moved_in,
            moved_out=each.moved_out,
            heaviest_added=_heaviest(added[domain], limit, reader),
            heaviest_dropped=_heaviest(dropped[domain], limit, reader),
        )
        for domain, each in differences.items()
    }


def _count(
    services: Services, base: RegisteredBase, parents: Parents, weighed: Sequence[Mapping[str, WeightedKeys]]
) -> None:
    """Read the counts once, of n-grams that a shared table may hold: a domain's lookups count for it and for its
    ancestors in its scope."""
    chains = ancestor_chains(parents)
    with services.database.session(read_only=True) as session:
        known = {domain.name: domain for domain in domains.list_domains(session)}
    rule = SharingRule(services.settings.tree_min_tenants)
    for block in frequencies.iter_blocks(services.database, base.id):
        own = known.get(block.domain)
        if own is None:
            continue
        if own.audience is Audience.PRIVATE:
            shown = block.tenants & np.uint64(PUBLIC) != 0
        else:
            shown = rule.may_be_held(block.domain, block.tenants)
        for domain in _reached(chains.get(block.domain, ()), known, own):
            for kind in weighed:
                if domain in kind:
                    kind[domain].add(block.ngrams[shown], block.counts[shown])


def _reached(chain: Sequence[str], known: Mapping[str, DomainView], own: DomainView) -> list[str]:
    return [each for each in chain if each in known and known[each].scope == own.scope]


def _heaviest(weighed: WeightedKeys, limit: int, reader: NgramReader | None) -> list[NgramText]:
    if reader is None:
        return []
    keys, counts = weighed.heaviest(limit)
    return reader.read(keys, counts.tolist())
