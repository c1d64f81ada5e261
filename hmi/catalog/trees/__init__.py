"""Knowledge trees in the catalog: versions and their artifacts, n-gram counts, hit counts of lookups.

Start with `builds`: a build begins, registers its artifacts and publishes; `history` lists versions. `frequencies` has
the n-gram counts that a build is planned from, `trimming` bounds them.
"""

from __future__ import annotations

from hmi.catalog.trees import frequencies, garbage
from hmi.catalog.trees.builds import (
    begin_build,
    extend_build,
    fail_build,
    fail_expired_builds,
    publish,
    register_artifact,
    rollback,
)
from hmi.catalog.trees.chunks import ChunkedTransactions
from hmi.catalog.trees.forgetting import count_affected, forget_tenants
from hmi.catalog.trees.frequencies import NgramCounts
from hmi.catalog.trees.history import (
    PublishedTree,
    is_rolled_back,
    lock_base,
    open_requests,
    published,
    ready_versions,
    request_rebuild,
    requested_version,
    running_builds,
    versions,
)
from hmi.catalog.trees.hits import HitCounts, hit_counts, record_hits
from hmi.catalog.trees.origins import declare_public
from hmi.catalog.trees.top_ngrams import Viewer, count_ngrams, list_top_ngrams
from hmi.catalog.trees.trimming import FrequencyLimits, trim_frequencies, trim_frequencies_if_due

__all__ = [
    "ChunkedTransactions",
    "FrequencyLimits",
    "HitCounts",
    "NgramCounts",
    "PublishedTree",
    "Viewer",
    "begin_build",
    "count_affected",
    "count_ngrams",
    "declare_public",
    "extend_build",
    "fail_build",
    "fail_expired_builds",
    "forget_tenants",
    "frequencies",
    "garbage",
    "hit_counts",
    "is_rolled_back",
    "list_top_ngrams",
    "lock_base",
    "open_requests",
    "publish",
    "published",
    "ready_versions",
    "record_hits",
    "register_artifact",
    "request_rebuild",
    "requested_version",
    "rollback",
    "running_builds",
    "trim_frequencies",
    "trim_frequencies_if_due",
    "versions",
]
