from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage.__main__ import as_text, main, measure_curve
from benchmarks.coverage.corpora import Corpus, Tokenised, Windows, all_texts, shuffled
from benchmarks.coverage.pays import crossing
from benchmarks.coverage.planning import Found, Planner, count, find, heaviest_for
from benchmarks.coverage.replay import REFERENCE, DecayingCounts, drifting, parents_of, replay
from benchmarks.coverage.tenants import deal, measure_tenants
from benchmarks.serving import BACKOFF, EXACT, EXACT_NO_CACHE
from hmi.bench.text import word_pieces
from hmi.errors import HmiError
from hmi.knowledge import Keys
from hmi.knowledge.counts import DomainCounts, LookupCounts
from tests.adapter_samples import sample_spec

PARENTS = {"general": None, "reviews": "general", "movies": "reviews", "products": "reviews", "news": "general"}
PARENTS |= {"tweets": "general"}


def keys_of(*tokens: int) -> Keys:
    """Windows of these tokens with a neighbour on either side."""
    return np.array([1 << 42 | (token + 1) << 21 | 1 for token in tokens], np.uint64)


def texts(word: str, n: int) -> list[str]:
    return [f"{word} {number}" for number in range(n)]


SENTENCES = Corpus(
    "sentences", PARENTS, {domain: texts(domain, 40) for domain in ("movies", "news", "products", "tweets")}
)
GLOSSES = Corpus(
    "glosses",
    {"general": None, "noun": "general", "noun.plant": "noun", "noun.person": "noun"},
    {"noun.plant": [*texts("plant", 100), "movies 3"], "noun.person": texts("person", 100)},
)


def planner() -> Planner:
    return Planner(sample_spec(k=2), "base")


def test_each_text_stands_once_and_the_order_is_the_hashs() -> None:
    assert shuffled(["b", "a", "b"]) == shuffled(["a", "b"])
    assert sorted(shuffled(texts("x", 50))) == sorted(texts("x", 50))
    assert shuffled(texts("x", 50)) != shuffled(texts("x", 50), salt="other")


def test_windows_of_a_part_are_those_of_its_texts() -> None:
    some = ["baba deda", "baba", "fufu gogo baba"]
    windows = Windows.of(some, word_pieces())
    assert len(windows) == 3
    for number, text in enumerate(some):
        assert (windows.part(number, number + 1) == Windows.of([text], word_pieces()).keys).all()
    assert len(windows.part(0, 0)) == 0
    assert (windows.part(0, 3) == windows.keys).all()
    tokenised = Tokenised(some, word_pieces())
    assert (tokenised.keys(some) == windows.keys).all()
    assert (tokenised.keys(some[1:2]) == windows.part(1, 2)).all()
    assert len(tokenised.keys([])) == 0


def test_lookups_are_told_apart_by_who_holds_the_window() -> None:
    tables = {"general": keys_of(1, 2), "reviews": keys_of(3), "movies": keys_of(2, 4), "news": keys_of(5)}
    found = find({"movies": keys_of(1, 2, 3, 4, 5, 5), "products": keys_of(3, 4)}, PARENTS, tables)
    assert found["movies"] == Found(lookups=6, own=2, inherited=2)
    assert found["products"] == Found(lookups=2, own=0, inherited=1)
    both = found["movies"] + found["products"]
    assert (both.hit_rate, both.inherited_share) == (5 / 8, 3 / 5)
    assert Found().hit_rate == Found().inherited_share == 0


def test_texts_are_dealt_to_tenants_and_a_tree_holds_less_when_more_must_ask() -> None:
    tokens = keys_of(*[1, 2, 3, 4, 5, 6, 7] * 24)
    windows = {domain: Windows(tokens, np.arange(7, 169, 7)) for domain in SENTENCES.texts}
    asked = deal(windows, 10, 5)
    assert sorted(tenant for each in asked.values() for tenant in each) == list(range(10))
    for domain, each in asked.items():
        dealt = np.concatenate([part for both in each.values() for part in both])
        assert sorted(dealt.tolist()) == sorted(windows[domain].keys.tolist())
    rows = measure_tenants(SENTENCES, windows, planner(), (10,), (1, 3, 11), 5)
    assert [row["min_tenants"] for row in rows] == [1, 3, 11, "private"]
    everything, some, nothing, private = rows
    assert everything["hit_rate"] == private["hit_rate"] == 1.0  # every text comes again
    assert everything["waiting"] == private["waiting"] == 0
    assert everything["entries"] == some["entries"] == 7 < private["entries"]
    assert (nothing["entries"], nothing["hit_rate"]) == (0, 0.0)
    assert nothing["waiting"] == 4 * 7


def test_more_entries_hold_no_less_when_budgets_grow() -> None:
    rng = np.random.default_rng(0)
    windows = {domain: Windows(keys_of(*(rng.zipf(1.5, 600) % 90)), np.arange(6, 601, 6)) for domain in SENTENCES.texts}
    points = measure_curve(SENTENCES, windows, planner(), (0, 3, 10, None))["points"]
    rates = [point["hit_rate"] for point in points]
    assert rates == sorted(rates)
    assert rates[0] == 0
    assert rates[-1] > 0.8
    assert points[0]["entries"] == planner().spec.vocab_size
    assert all(point["bytes"] == point["entries"] * planner().entry_bytes for point in points)
    assert points[1]["entries"] <= points[0]["entries"] + 3 * len(PARENTS)


def test_no_text_comes_twice_and_the_mix_changes_when_traffic_drifts() -> None:
    before, after = drifting(SENTENCES, GLOSSES, 3)
    assert [len(before), len(after)] == [3, 3]
    seen = [text for period in (*before, *after) for domain in period for text in period[domain]]
    assert len(seen) == len(set(seen))
    assert set(seen) == set(all_texts((SENTENCES, GLOSSES)))
    subjects = [[text.split()[0] for period in half for text in period[REFERENCE]] for half in (before, after)]
    assert [(each.count("plant"), each.count("person")) for each in subjects] == [(90, 10), (10, 90)]
    movies = [sum(len(period.get("movies", ())) for period in half) for half in (before, after)]
    assert movies == [30, 10]
    assert set(parents_of(SENTENCES)) == {*PARENTS, REFERENCE}


def delta(domain: str, keys: Keys, counts: list[int], lookups: int) -> LookupCounts:
    return LookupCounts("base", domain, 1, keys, np.array(counts, np.int64), np.zeros(len(keys), np.uint64), lookups, 0)


def test_counts_halve_with_each_half_life() -> None:
    counts = DecayingCounts(half_life=2.0)
    counts.add([delta("news", keys_of(1, 2), [8, 4], 16)], at=1.0)
    counts.add([delta("news", keys_of(2, 3), [1, 2], 3), delta("tweets", keys_of(9), [5], 5)], at=3.0)
    faded = counts.load(at=5.0)
    assert (faded["news"].keys == keys_of(1, 2, 3)).all()
    np.testing.assert_allclose(faded["news"].weights, [8 / 4, 4 / 4 + 1 / 2, 2 / 2])
    assert faded["news"].total == pytest.approx(16 / 4 + 3 / 2)
    np.testing.assert_allclose(faded["tweets"].weights, [5 / 2])


def test_hit_rate_drops_and_comes_back_when_replayed_traffic_drifts() -> None:
    """Two sets of windows, the second from the third period on, in a budget that holds one of them."""
    old, new = keys_of(*range(10)), keys_of(*range(20, 30))
    served = replay([{"news": old}] * 2 + [{"news": new}] * 3, PARENTS, planner(), 10, half_life=0.5)
    assert [each.found.hit_rate for each in served] == [0, 1, 0, 1, 1]
    assert [each.predicted for each in served[:3]] == [None, 0, 1]  # what was new once is expected to be again
    assert served[2].added == 10
    assert served[3].added == 0
    assert served[1].by_domain["news"].own == 10
    slow = replay([{"news": old}] * 4 + [{"news": new}] * 2, PARENTS, planner(), 10, half_life=1e6)
    assert slow[-1].found.hit_rate == 0


def test_crossing_lies_between_the_points_around_it() -> None:
    assert crossing([0.0, 0.5, 1.0], [0.5, 0.9, 1.1]) == pytest.approx(0.75)
    assert crossing([0.0, 0.5, 1.0], [0.5, 0.9, 0.95]) is None
    assert crossing([0.2, 0.5], [1.0, 1.2]) == 0.2
    assert crossing([], []) is None
    assert crossing([0.0, 0.2, 0.4, 0.6], [0.9, 1.1, 0.9, 1.1]) == pytest.approx(0.5)  # where it stays above


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_chosen_windows_hold_the_share_that_was_aimed_at(rate: float) -> None:
    asked = keys_of(*(np.random.default_rng(1).zipf(1.4, 2_000) % 500))
    held = heaviest_for(count(keys_of(*range(100), 1, 1, 2)), asked, rate)
    assert (np.diff(held.astype(np.int64)) > 0).all()
    lookups = np.isin(asked, held)
    assert lookups.mean() >= rate - 1e-3
    if 0 < rate < 1:
        without_one = [np.isin(asked, held[held != key]).mean() for key in held]
        assert min(without_one) < rate


def test_known_windows_come_first_and_heaviest_first() -> None:
    counts = DomainCounts(keys_of(5, 6), np.array([1.0, 7.0]))
    asked = keys_of(4, 5, 6, 7)
    assert (heaviest_for(counts, asked, 0.25) == keys_of(6)).all()
    assert (heaviest_for(counts, asked, 0.5) == keys_of(5, 6)).all()
    assert len(heaviest_for(DomainCounts(keys_of(), np.empty(0)), asked, 0.5)) == 2


def test_text_has_the_tables_and_the_plain_figures() -> None:
    rates = {name: {"ratio": 0.75} for name in (EXACT, EXACT_NO_CACHE, BACKOFF)}
    point = {"node_entries": None, "entries": 100, "bytes": 9, "hit_rate": 0.3, "inherited_share": 0.5}
    report = {
        "curve": [{"corpus": "four domains", "texts": 9, "tokens": 90, "points": [point]}],
        "replay": [{"hit_rate": 0.3, "predicted": None, "inherited_share": 0.5, "rebuilt_entries": 9}],
        "pays": [
            {"shape": "base", "k": 6, "dtype": "bfloat16", "device": "cpu", "points": [{"hit_rate": 0.6, **rates}]}
        ],
        "hit_before": 0.25,
    }
    text = as_text(report)
    assert "four domains: 9 texts, 90 tokens" in text
    assert "hit_before: 0.25" in text
    assert all(figure in text for figure in ("30.0%", "60.0%", "0.75"))
    assert as_text({"hit_before": 1}) == "hit_before: 1"


def test_reason_is_one_line_when_the_text_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(_: object) -> Corpus:
        raise HmiError("there is no text here", code="text_unavailable")

    monkeypatch.setattr("benchmarks.coverage.__main__.four_domains", unavailable)
    with pytest.raises(SystemExit, match=r"^benchmarks\.coverage: there is no text here$"):
        main(["--quick", "--json"])
