from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.knowledge import Keys, ngrams
from hmi.knowledge.counts import DomainCounts, SharingRule, Waiting
from hmi.knowledge.plan import PreviousTable, TreePlan, plan_tree
from hmi.tenant_bits import PUBLIC, TENANT_BITS, bitmap_of
from tests.unit.knowledge.builds import PLAIN
from tests.unit.knowledge.plans import ROW_BYTES, UNIGRAMS, VOCABULARY, key
from tests.unit.knowledge.tables import PARENTS

AB, CB, DB = key(1, 0), key(2, 1), key(3, 2)
ONE, TWO, THREE = (bitmap_of(bit) for bit in range(3))
PRIVATE = SharingRule(3, {"movies": "private:acme"}, {"movies": ONE})


def counts(bitmaps: dict[int, int], weight: float = 10.0, share: float = 0.0) -> DomainCounts:
    keys = np.array(sorted(bitmaps), np.uint64)
    tenants = np.array([bitmaps[each] for each in keys.tolist()], np.uint64)
    return DomainCounts(keys, np.full(len(keys), weight), approximate_share=share, tenants=tenants)


def plan(counted: dict[str, DomainCounts], rule: SharingRule, entries: int = 100) -> TreePlan:
    previous: dict[str, PreviousTable] = {}
    return plan_tree(counted, PARENTS, PLAIN, previous, VOCABULARY, entries * ROW_BYTES, ROW_BYTES, rule=rule)


def held(made: TreePlan, domain: str) -> list[int]:
    keys: Keys = made.tables[domain]
    longer: list[int] = keys[~np.isin(keys, UNIGRAMS)].tolist()
    return longer


@pytest.mark.parametrize(
    ("bitmap", "min_tenants", "is_held"),
    [
        (0, 1, False),  # counted before bitmaps were kept
        (ONE, 1, True),
        (ONE | TWO, 3, False),
        (ONE | TWO | THREE, 3, True),
        (PUBLIC, 32, True),
        (PUBLIC - 1, TENANT_BITS, True),
    ],
)
def test_an_ngram_is_held_when_enough_tenants_asked_for_it(bitmap: int, min_tenants: int, is_held: bool) -> None:
    made = plan({"movies": counts({AB: bitmap})}, SharingRule(min_tenants))
    assert held(made, "movies") == ([AB] if is_held else [])
    assert sum(each.tenants + each.origin for each in made.waiting.values()) == (0 if is_held else 1)


def test_tenants_of_the_whole_subtree_count_when_a_parent_holds_the_ngram() -> None:
    made = plan({"movies": counts({AB: ONE | TWO}), "products": counts({AB: THREE})}, SharingRule(3))
    assert (held(made, "movies"), held(made, "products"), held(made, "reviews")) == ([], [], [AB])


def test_a_private_domain_holds_what_its_owner_asked_for_and_nothing_flows_up() -> None:
    made = plan({"movies": counts({AB: ONE, CB: TWO, DB: 0}), "products": counts({AB: TWO | THREE})}, PRIVATE)
    assert held(made, "movies") == [AB]
    assert (held(made, "reviews"), held(made, "general"), held(made, "products")) == ([], [], [])
    assert made.waiting["movies"] == Waiting(tenants=1, origin=1)


def test_counts_of_another_scope_weigh_nothing_when_a_shared_table_is_planned() -> None:
    shared = {"products": counts({AB: PUBLIC, CB: PUBLIC}, share=0.5), "reviews": counts({DB: PUBLIC}, share=0.5)}
    alone = plan(shared, PRIVATE, entries=1)
    beside = plan({**shared, "movies": counts({key(1, prev): ONE for prev in range(4)}, 1000.0)}, PRIVATE, entries=1)
    for domain in ("general", "reviews", "products"):
        assert held(alone, domain) == held(beside, domain)


BITMAPS = st.dictionaries(st.sampled_from([key(t, p) for p in (0, 1, 2) for t in range(VOCABULARY)]), st.integers(0, 7))
SHARES = st.sampled_from([0.0, 0.5])


@given(
    st.dictionaries(st.sampled_from(sorted(PARENTS)), st.tuples(BITMAPS, SHARES)),
    st.dictionaries(st.sampled_from(sorted(PARENTS)), BITMAPS),
    st.integers(0, 3),
)
def test_a_plan_is_the_same_when_only_what_too_few_asked_for_differs(
    asked: dict[str, tuple[dict[int, int], float]], secret: dict[str, dict[int, int]], entries: int
) -> None:
    fourth = bitmap_of(3)  # the only tenant whose texts have the token 3
    base = {
        domain: counts({each: bits for each, bits in bitmaps.items() if not has_secret(each)}, share=share)
        for domain, (bitmaps, share) in asked.items()
    }
    more = dict(base)
    for domain, bitmaps in secret.items():
        own = {each: fourth for each in bitmaps if has_secret(each)}
        both = base.get(domain, counts({}))
        merged = dict(zip(both.keys.tolist(), both.bitmaps.tolist(), strict=True)) | own
        more[domain] = counts(merged, share=both.approximate_share)
    without, with_secret = (plan(each, SharingRule(2), entries) for each in (base, more))
    for domain in PARENTS:
        assert without.tables[domain].tolist() == with_secret.tables[domain].tolist()


def has_secret(each: int) -> bool:
    """Whether the token 3 is in the window."""
    return 3 in ngrams.unpack(np.array([each], np.uint64))[0].tolist()
