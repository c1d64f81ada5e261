"""Lookups in random trees of several functions, against plain dicts walked as the definition says."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmi.errors import Corrupt, NotFound
from hmi.knowledge import Keys, functions_of, ngrams
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import NO_ROW, StoredRows, Table, round_trip
from hmi.spec import RowDtype
from tests.unit.knowledge.tables import HIDDEN, PARENTS, as_keys, make_table, rows_of

BASE = "b" * 64
DOMAINS = ["general", "reviews", "movies", "horror", "news"]
# Every n-gram of three tokens: windows, bigrams and unigrams.
GRAMS = [
    int(ngrams.pack(*(np.array([token]) for token in gram))[0])
    for gram in itertools.product(range(-1, 2), range(2), range(-1, 2))
]


@dataclass(frozen=True)
class Written:
    """What a table is written with."""

    function: str
    keys: set[int]
    aliases: set[int]
    alias_function: str | None


@dataclass(frozen=True)
class Case:
    parents: dict[str, str | None]
    functions: dict[str, str]
    tables: dict[str, Written]

    def chain(self, domain: str) -> list[str]:
        parent = self.parents[domain]
        return [domain, *(self.chain(parent) if parent else [])]

    def find(self, domain: str, key: int) -> str | None:
        """The domain whose row a lookup of the key gives."""
        chain = self.chain(domain)
        while chain:
            run = list(next(itertools.groupby(chain, key=self.functions.__getitem__))[1])
            chain = chain[len(run) :]
            tables = {each: self.tables[each] for each in run if each in self.tables}
            for each, table in tables.items():
                if key in table.keys:
                    return each
            above = self.functions[chain[0]] if chain else None
            if not any(key in table.aliases and table.alias_function == above for table in tables.values()):
                return None
        return None

    def back_off(self, domain: str, key: int, far: bool) -> tuple[str, int] | None:
        """The domain whose row a missing window gets under backoff, and the n-gram of the row."""
        for shorten in ngrams.BACKOFF if far else ():
            shorter = int(shorten(np.array([key], np.uint64))[0])
            if (at := self.find(domain, shorter)) is not None:
                return at, shorter
        for shorten in (lambda keys: keys, *ngrams.BACKOFF):
            shorter = int(shorten(np.array([key], np.uint64))[0])
            for each in self.chain(domain):
                if each in self.tables and shorter in self.tables[each].keys:
                    return each, shorter
        return None

    def row(self, at: tuple[str, int] | None, dtype: RowDtype) -> list[float]:
        if at is None:
            return [0.0] * HIDDEN
        rows: list[float] = round_trip(rows_of(as_keys([at[1]]), self.functions[at[0]]), dtype)[0].tolist()
        return rows

    def open(self, folder: Path, dtype: RowDtype) -> KnowledgeTree:
        tables = {
            domain: make_table(
                folder,
                domain,
                as_keys(each.keys),
                dtype,
                function=each.function,
                aliases=as_keys(each.aliases),
                alias_function=each.alias_function,
            )
            for domain, each in self.tables.items()
        }
        return KnowledgeTree(1, self.parents, tables, dtype, HIDDEN, self.functions)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A root and domains under others; deltas at some; tables at some, with aliases that refer to the next
    function on the chain, or to one that it was before the domain was moved or a delta was changed."""
    parents: dict[str, str | None] = {}
    for domain in DOMAINS[: draw(st.integers(1, len(DOMAINS)))]:
        parents[domain] = draw(st.sampled_from(list(parents)[-2:])) if parents else None
    drawn = {domain: draw(st.sampled_from(["", "1", "2"])) for domain in parents}
    deltas = {domain: delta for domain, delta in drawn.items() if delta}
    functions = {domain: each.digest for domain, each in functions_of(BASE, parents, deltas).items()}
    tables = {}
    for domain in draw(st.sets(st.sampled_from(list(parents)))):
        keys = draw(st.sets(st.sampled_from(GRAMS)))
        aliases = draw(st.sets(st.sampled_from(GRAMS))) - keys
        up = [functions[each] for each in Case(parents, functions, {}).chain(domain)]
        next_up = next((each for each in up if each != up[0]), BASE)
        above = draw(st.sampled_from([next_up, next_up, BASE, "c" * 64]))
        tables[domain] = Written(functions[domain], keys, aliases, above)
    return Case(parents, functions, tables)


QUERIES = st.lists(st.sampled_from(GRAMS), max_size=60)


@pytest.mark.parametrize("dtype", list(RowDtype))
@settings(max_examples=60, deadline=None)
@given(case=cases(), queries=QUERIES)
def test_lookup_and_backoff_equal_dicts(
    tmp_path_factory: pytest.TempPathFactory, dtype: RowDtype, case: Case, queries: list[int]
) -> None:
    tree = case.open(tmp_path_factory.mktemp("tree"), dtype)
    keys = np.array(queries, np.uint64)
    for domain in case.parents:
        assert tree.chain(domain) == tuple(case.chain(domain))
        assert tree.function_of(domain) == case.functions[domain]
        found = [case.find(domain, key) for key in queries]
        exact = [at is not None for at in found]
        own = [(at, key) if at is not None else None for at, key in zip(found, queries, strict=True)]

        lookup = tree.lookup(domain, keys)
        assert lookup.hit.tolist() == lookup.exact.tolist() == exact
        assert lookup.inherited.tolist() == [at is not None and at != domain for at in found]
        assert lookup.rows.tolist() == [case.row(at, dtype) for at in own]
        positions = [case.chain(domain).index(at) if at is not None else -1 for at in found]
        assert tree.holder_positions(domain, keys).tolist() == positions

        backed = [
            at or case.back_off(domain, key, tree._chain(domain).foreign_is_far)
            for at, key in zip(own, queries, strict=True)
        ]
        backoff = tree.lookup(domain, keys, backoff=True)
        assert backoff.hit.tolist() == [at is not None for at in backed]
        assert backoff.exact.tolist() == exact
        assert backoff.inherited.tolist() == [at is not None and at[0] != domain for at in backed]
        assert backoff.rows.tolist() == [case.row(at, dtype) for at in backed]


@settings(max_examples=30, deadline=None)
@given(case=cases(), queries=QUERIES, backoff=st.booleans())
def test_a_keys_row_does_not_depend_on_the_other_keys(
    tmp_path_factory: pytest.TempPathFactory, case: Case, queries: list[int], backoff: bool
) -> None:
    tree = case.open(tmp_path_factory.mktemp("tree"), RowDtype.INT8)
    rows = StoredRows(RowDtype.INT8, HIDDEN, 2 * len(queries))
    keys = np.array(queries, np.uint64)
    for domain in case.parents:
        rows.clear()
        # Two lookups share one buffer, as those of a batch's domains do.
        parts = [tree.gather(domain, part, rows, backoff=backoff) for part in np.array_split(keys, 2)]
        together = rows.decode(np.concatenate([part.positions for part in parts]))
        flags = [(part.hit, part.exact, part.inherited) for part in parts]
        for number in range(len(queries)):
            one = keys[number : number + 1]
            alone = tree.lookup(domain, one, backoff=True) if backoff else tree.lookup(domain, one)
            np.testing.assert_array_equal(together[number], alone.rows[0])
            for kind, value in enumerate((alone.hit, alone.exact, alone.inherited)):
                assert np.concatenate([each[kind] for each in flags])[number] == value[0]


def make_chain(folder: Path, aliases: Keys, above: str) -> KnowledgeTree:
    """`movies` has a delta and aliases; `general`, of the base's function, holds 0 to 9."""
    tables: dict[str, Table] = {
        "general": make_table(folder, "general", as_keys(range(10)), function=BASE),
        "movies": make_table(folder, "movies", as_keys([1]), function="d" * 64, aliases=aliases, alias_function=above),
    }
    functions = dict.fromkeys(PARENTS, BASE) | {"movies": "d" * 64}
    return KnowledgeTree(1, PARENTS, tables, RowDtype.INT8, HIDDEN, functions)


def test_a_row_of_another_function_is_taken_only_for_an_alias(tmp_path: Path) -> None:
    tree = make_chain(tmp_path, as_keys([2, 3, 20]), BASE)
    found = tree.lookup("movies", as_keys([1, 2, 3, 4, 20]))
    assert found.hit.tolist() == [True, True, True, False, False]
    assert found.inherited.tolist() == [False, True, True, False, False]
    np.testing.assert_array_equal(found.rows[1:3], round_trip(rows_of(as_keys([2, 3]), BASE), RowDtype.INT8))
    assert tree.lookup("reviews", as_keys([1, 4])).hit.all()  # above the delta nothing changes


def test_an_alias_may_refer_to_an_alias(tmp_path: Path) -> None:
    near, middle = "n" * 64, "m" * 64
    tables = {
        "movies": make_table(
            tmp_path, "movies", as_keys([]), function=near, aliases=as_keys([1, 2, 3]), alias_function=middle
        ),
        "reviews": make_table(
            tmp_path, "reviews", as_keys([1]), function=middle, aliases=as_keys([2, 4]), alias_function=BASE
        ),
        "general": make_table(tmp_path, "general", as_keys([2, 3, 4]), function=BASE),
    }
    functions = dict.fromkeys(PARENTS, BASE) | {"movies": near, "reviews": middle, "products": middle}
    tree = KnowledgeTree(1, PARENTS, tables, RowDtype.INT8, HIDDEN, functions)
    assert tree.holder_positions("movies", as_keys([1, 2, 3, 4])).tolist() == [1, 2, -1, -1]


def test_aliases_are_ignored_when_the_function_above_has_changed(tmp_path: Path) -> None:
    found = make_chain(tmp_path, as_keys([2, 3]), "c" * 64).lookup("movies", as_keys([1, 2, 3]))
    assert found.hit.tolist() == [True, False, False]


def test_backoff_prefers_another_functions_row_of_the_window_to_a_shorter_one_of_its_own(tmp_path: Path) -> None:
    window, bigram = (
        int(ngrams.pack(*map(np.array, ([5], [6], [7])))[0]),
        int(ngrams.pack(*map(np.array, ([5], [6], [-1])))[0]),
    )
    tables = {
        "general": make_table(tmp_path, "general", as_keys([window]), function=BASE),
        "movies": make_table(tmp_path, "movies", as_keys([bigram]), function="d" * 64),
    }
    functions = dict.fromkeys(PARENTS, BASE) | {"movies": "d" * 64}
    tree = KnowledgeTree(1, PARENTS, tables, RowDtype.INT8, HIDDEN, functions)
    found = tree.lookup("movies", as_keys([window]), backoff=True)
    assert (found.hit[0], found.exact[0], found.inherited[0]) == (True, False, True)
    np.testing.assert_array_equal(found.rows, round_trip(rows_of(as_keys([window]), BASE), RowDtype.INT8))


def test_backoff_prefers_shorter_ones_of_its_own_to_rows_of_a_function_that_is_far(tmp_path: Path) -> None:
    """Rows of functions whose digests begin with other letters are as far from each other as any."""
    window, bigram, token = (
        int(ngrams.pack(*(np.array([each]) for each in gram))[0]) for gram in ((5, 6, 7), (5, 6, -1), (-1, 6, -1))
    )
    both = [*ngrams.unigrams(9).tolist(), *(int(gram) for gram in GRAMS)]  # none of a token above 1 but unigrams
    tables = {
        "general": make_table(tmp_path, "general", as_keys([window, bigram, *both]), function=BASE),
        "movies": make_table(tmp_path, "movies", as_keys(both), function="d" * 64),
    }
    functions = dict.fromkeys(PARENTS, BASE) | {"movies": "d" * 64}
    tree = KnowledgeTree(1, PARENTS, tables, RowDtype.INT8, HIDDEN, functions)
    assert tree._chain("movies").foreign_is_far
    assert not tree._chain("reviews").foreign_is_far
    found = tree.lookup("movies", as_keys([window]), backoff=True)
    assert (found.hit[0], found.exact[0], found.inherited[0]) == (True, False, False)
    np.testing.assert_array_equal(found.rows, round_trip(rows_of(as_keys([token]), "d" * 64), RowDtype.INT8))


def test_a_tree_refuses_a_table_of_another_function_than_its_domains(tmp_path: Path) -> None:
    table = make_table(tmp_path, "movies", as_keys([1]), function=BASE)
    with pytest.raises(Corrupt, match=r"the table of movies was computed by function b+ instead of d+"):
        KnowledgeTree(1, PARENTS, {"movies": table}, RowDtype.INT8, HIDDEN, dict.fromkeys(PARENTS, "d" * 64))
    with pytest.raises(Corrupt, match="names no function for domain news"):
        functions = {domain: BASE for domain in PARENTS if domain != "news"}
        KnowledgeTree(1, PARENTS, {"movies": table}, RowDtype.INT8, HIDDEN, functions)


def test_an_unknown_domain_has_no_function_and_no_rows(tmp_path: Path) -> None:
    tree = make_chain(tmp_path, as_keys([]), BASE)
    assert tree.function_of("sports") is None
    with pytest.raises(NotFound, match="no domain sports"):
        tree.gather("sports", as_keys([1]), StoredRows(RowDtype.INT8, HIDDEN, 1))


@pytest.mark.parametrize("dtype", list(RowDtype))
def test_stored_rows_from_several_places_are_decoded_in_any_order(tmp_path: Path, dtype: RowDtype) -> None:
    table = make_table(tmp_path, "general", as_keys(range(10)), dtype)
    rows = StoredRows(dtype, HIDDEN, 5)
    first, second = rows.add(table, np.array([3, 4, 3])), rows.add_encoded(table.encoded(np.array([9, 8])))
    decoded = rows.decode(np.array([second[0], NO_ROW, first[1], first[2], second[1]]))
    expected = round_trip(rows_of(as_keys(range(10))), dtype)
    np.testing.assert_array_equal(
        decoded, np.stack([expected[9], 0 * expected[0], expected[4], expected[3], expected[8]])
    )
    with pytest.raises(ValueError, match="6 rows exceed the capacity of 5"):
        rows.add(table, np.array([0]))
    rows.clear()
    assert rows.decode(np.array([NO_ROW])).tolist() == [[0.0] * HIDDEN]
