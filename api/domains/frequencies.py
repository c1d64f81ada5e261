"""/v1/hmi/frequencies: count an operator's text, so that the first tree needs no traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from api.routing import Served, admin_router, errors
from hmi.catalog import (
    ChunkedTransactions,
    FrequencyLimits,
    NgramCounts,
    bases,
    domains,
    frequencies,
    trees,
)
from hmi.errors import InvalidInput
from hmi.knowledge import Keys, window_keys
from hmi.schemas import FrequenciesCounted, FrequenciesCreate, FrequenciesPublish, FrequenciesPublished
from hmi.spec import HPLMSpec
from hmi.tenant_bits import PUBLIC

_CHUNK = 1000

router = admin_router("/v1/hmi/frequencies", "knowledge")


@dataclass(frozen=True, slots=True)
class Counted:
    """Different n-grams, uint64 [n], and how often each was seen, int64 [n]."""

    ngrams: Keys
    counts: NDArray[np.int64]


@router.post("", summary="Count n-grams of texts", responses=errors(404, 413))
def add_frequencies(services: Served, body: FrequenciesCreate) -> FrequenciesCounted:
    """Count the windows of these texts as lookups; the next rebuild plans with them.

    Their n-grams are public: a table may hold them whether a tenant asks for them or not.
    """
    with services.database.session(read_only=True) as session:
        base = bases.get_base(session, body.base)
        domain = domains.get_domain(session, body.domain)
        spec = bases.spec_of(base)
    if not spec.k:
        raise InvalidInput(f"{base.name} has no lookups: its k is 0", param="base")
    counted = _count(services.tokenizer(base.artifact), spec, body.texts)
    settings = services.settings
    # An interruption leaves some of the texts' n-grams counted, which does a plan no harm.
    chunks, start = ChunkedTransactions(services.database), 0
    while start < len(counted.ngrams):
        part = slice(start, start + chunks.rows)
        ngrams, counts = counted.ngrams[part], counted.counts[part]
        with chunks.transaction(len(ngrams)) as session:
            frequencies.add(
                session,
                [NgramCounts(base.id, domain.id, ngrams, counts, PUBLIC)],
                half_life_seconds=settings.frequency_half_life_seconds,
            )
        start += len(ngrams)
    limits = FrequencyLimits(settings.frequency_max_keys, settings.frequency_max_rows)
    trees.trim_frequencies_if_due(services.database, limits)
    return FrequenciesCounted(
        base=base.name,
        domain=domain.name,
        texts=len(body.texts),
        windows=int(counted.counts.sum()),
        ngrams=len(counted.ngrams),
    )


@router.post("/public", summary="Declare old counts public", responses=errors(404))
def declare_public(services: Served, body: FrequenciesPublish) -> FrequenciesPublished:
    """Let tables of a domain hold n-grams of which it is not known who asked: those from before this was recorded.

    A call that was interrupted is finished by another one.
    """
    with services.database.session(read_only=True) as session:
        base = bases.get_base(session, body.base)
        domain = domains.get_domain(session, body.domain)
    marked = trees.declare_public(services.database, base.id, domain.id)
    return FrequenciesPublished(base=base.name, domain=domain.name, ngrams=marked)


def _count(tokenizer: Tokenizer, spec: HPLMSpec, texts: Sequence[str]) -> Counted:
    """Windows as the engine sees them: with special tokens, cut at the model's longest sequence."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(spec.max_positions)
    ngrams, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    remaining = iter(texts)
    while chunk := list(islice(remaining, _CHUNK)):
        sequences = [encoding.ids for encoding in tokenizer.encode_batch_fast(chunk)]
        ids = np.array([each for sequence in sequences for each in sequence], np.int64)
        lengths = np.array([len(sequence) for sequence in sequences], np.int64)
        seen, seen_counts = np.unique(window_keys(ids, lengths, looks_back=spec.family.decodes), return_counts=True)
        ngrams, places = np.unique(np.concatenate([ngrams, seen]), return_inverse=True)
        merged = np.zeros(len(ngrams), np.int64)
        np.add.at(merged, places, np.concatenate([counts, seen_counts]))
        counts = merged
    return Counted(ngrams, counts)
