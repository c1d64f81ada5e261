from __future__ import annotations

import dataclasses
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.coverage.__main__ import main
from benchmarks.coverage.corpora import Corpus, Tokenised, Windows, all_texts, shuffled
from benchmarks.coverage.curve import Found, count, find, growth, split, sweep
from benchmarks.coverage.fading import FadingCounts
from benchmarks.coverage.pays import crossing, heaviest_for
from benchmarks.coverage.picture import Panel, draw, panels_of
from benchmarks.coverage.planning import Planner
from benchmarks.coverage.replay import replay
from benchmarks.coverage.report import as_text
from benchmarks.coverage.serving import BACKOFF, EXACT, EXACT_ALONE, ORDINARY
from benchmarks.coverage.traffic import REFERENCE, WHOLE, drifting, parents_of, steady
from hmi.bench.text import word_pieces
from hmi.errors import HmiError
from hmi.knowledge import Keys
from hmi.knowledge.counts import DomainCounts, FrequencyDelta
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
    counted, judges = split(Windows.of(texts("baba", 10), word_pieces()))
    assert len(counted) == 4 * len(judges)


def test_lookups_are_told_apart_by_who_holds_the_window() -> None:
    tables = {"general": keys_of(1, 2), "reviews": keys_of(3), "movies": keys_of(2, 4), "news": keys_of(5)}
    found = find({"movies": keys_of(1, 2, 3, 4, 5, 5), "products": keys_of(3, 4)}, PARENTS, tables)
    assert found["movies"] == Found(lookups=6, own=2, inherited=2)
    assert found["products"] == Found(lookups=2, own=0, inherited=1)
    both = found["movies"] + found["products"]
    assert (both.hit_rate, both.inherited_share) == (5 / 8, 3 / 5)
    assert Found().hit_rate == Found().inherited_share == 0


def test_more_entries_hold_no_less_when_budgets_grow() -> None:
    rng = np.random.default_rng(0)
    drawn = {domain: keys_of(*(rng.zipf(1.5, 600) % 90)) for domain in SENTENCES.texts}
    counts = {domain: count(keys[:500]) for domain, keys in drawn.items()}
    asked = {domain: keys[500:] for domain, keys in drawn.items()}
    points = sweep(counts, asked, SENTENCES, planner(), [0, 3, 10, None])
    rates = [point.found.hit_rate for point in points]
    assert rates == sorted(rates)
    assert rates[0] == 0
    assert rates[-1] > 0.8
    assert points[0].entries == planner().spec.vocab_size
    assert all(point.bytes == point.entries * planner().entry_bytes for point in points)
    assert points[1].entries <= points[0].entries + 3 * len(PARENTS)


def test_growth_is_measured_on_text_that_was_not_counted() -> None:
    rng = np.random.default_rng(0)
    keys = keys_of(*(rng.zipf(1.3, 50_000) % 30_000))
    grown = growth("news", Windows(keys, np.arange(10, len(keys) + 1, 10)))
    assert grown.tokens[-1] == 40_000
    assert list(grown.tokens) == sorted(grown.tokens)
    assert list(grown.distinct) == sorted(grown.distinct)
    assert (grown.hit_rate[0], grown.points_per_doubling) < (grown.hit_rate[-1], 10)
    more = grown.hit_rate[-1] + grown.points_per_doubling / 100
    assert grown.tokens_for(more) == pytest.approx(80_000)
    assert dataclasses.replace(grown, points_per_doubling=0.0).tokens_for(1.0) == float("inf")


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


def test_nothing_is_left_of_the_old_mix_when_all_of_it_drifts() -> None:
    before, after = drifting(SENTENCES, GLOSSES, 1, WHOLE)
    assert {text.split()[0] for text in before[0][REFERENCE]} == {"plant"}
    assert set(before[0]) == {"movies", "news", REFERENCE}
    assert set(after[0]) == {"products", "tweets", REFERENCE}
    back = drifting(SENTENCES, GLOSSES, 1, dataclasses.replace(WHOLE, backward=True))
    assert back == (after, before)


def test_the_same_texts_are_spread_evenly_when_nothing_drifts() -> None:
    before, after = drifting(SENTENCES, GLOSSES, 2)
    even = steady(before, after)
    assert len(even) == 4

    def seen(periods: Any) -> list[str]:
        return sorted(text for period in periods for domain in period for text in period[domain])

    assert seen(even) == seen([*before, *after])
    plants = [sum(text.startswith("plant") for text in period[REFERENCE]) for period in even]
    assert max(plants) < 2 * min(plants)


def delta(domain: str, keys: Keys, counts: list[int], lookups: int) -> FrequencyDelta:
    return FrequencyDelta("base", domain, 1, keys, np.array(counts, np.int64), lookups, 0)


def test_counts_halve_with_each_half_life() -> None:
    counts = FadingCounts(half_life=2.0)
    counts.add([delta("news", keys_of(1, 2), [8, 4], 16)], at=1.0)
    counts.add([delta("news", keys_of(2, 3), [1, 2], 3), delta("tweets", keys_of(9), [5], 5)], at=3.0)
    faded = counts.load(at=5.0)
    assert (faded["news"].keys == keys_of(1, 2, 3)).all()
    np.testing.assert_allclose(faded["news"].weights, [8 / 4, 4 / 4 + 1 / 2, 2 / 2])
    assert faded["news"].total == pytest.approx(16 / 4 + 3 / 2)
    np.testing.assert_allclose(faded["tweets"].weights, [5 / 2])


def test_counts_stay_when_there_is_no_half_life() -> None:
    counts = FadingCounts(None)
    counts.add([delta("news", keys_of(1), [8], 8)], at=1.0)
    counts.add([delta("news", keys_of(1), [2], 2)], at=1_000.0)
    np.testing.assert_allclose(counts.load(at=2_000.0)["news"].weights, [10])


def test_hit_rate_drops_and_comes_back_when_replayed_traffic_drifts() -> None:
    """Two sets of windows, the second from the third period on, in a budget that holds one of them."""
    old, new = keys_of(*range(10)), keys_of(*range(20, 30))
    served = replay([{"news": old}] * 2 + [{"news": new}] * 3, PARENTS, planner(), 10, half_life=0.5)
    assert [each.found.hit_rate for each in served] == [0, 1, 0, 1, 1]
    assert [each.predicted for each in served[:3]] == [None, 0, 1]  # what was new once is expected to be again
    assert served[2].added == 10
    assert served[3].added == 0
    assert served[1].by_domain["news"].own == 10
    slow = replay([{"news": old}] * 4 + [{"news": new}] * 2, PARENTS, planner(), 10, half_life=None)
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


def _rate(ratio: float, hit_rate: float | None) -> dict[str, Any]:
    return {"tokens_s": 100 * ratio, "ratio": ratio, "hit_rate": hit_rate, "computed": hit_rate}


def _report() -> dict[str, Any]:
    rates = {EXACT: _rate(0.8, 0.3), EXACT_ALONE: _rate(0.7, 0.3), BACKOFF: _rate(1.4, 0.3), ORDINARY: _rate(1, None)}
    points = [{"aimed_at": rate, "hit_rate": rate, **rates} for rate in (0.0, 0.5, 1.0)]
    grown = dataclasses.asdict(growth("all", Windows(keys_of(*range(9_000)), np.arange(10, 9_001, 10))))
    period = {"hit_rate": 0.3, "hit_rate_without_drift": 0.4, "predicted": None, "inherited_share": 0.5}
    moments = {f"hit_{name}": 0.25 for name in ("before", "after_drift", "after_rebuild", "at_end")}
    build = {"number": 1, "entries": 10, "bytes": 1_000, "computed": 4, "copied": 6, "seconds": 0.5}
    return {
        "curve": [
            {
                "corpus": "four <domains>",
                "texts": 9,
                "tokens": 90,
                "distinct": 70,
                "seen_once_share": 0.9,
                "points": [
                    {"node_entries": n, "entries": 100 + (n or 900), "bytes": 9, "hit_rate": 0.3}
                    | {"own_share": 0.5, "inherited_share": 0.5}
                    for n in (10, 100, None)
                ],
                "growth": [{**grown, "tokens_for_two_thirds": 1e9}] * 2,
            }
        ],
        "drift": {
            "periods_in_each_half": 1,
            "lookups_in_a_period": 1_000,
            "node_entries": 10,
            "periods": [{**period, "rebuilt_entries": 9, "rebuilt_added": 3}] * 2,
            "half_lives": [{"half_life_periods": None, **moments, "recovered_within_points": 0.5}],
            "drifts": [{"drift": "whole", "backward": True, **moments, "recovered_within_points": 0.5}],
            "throughput": {"before": rates},
            "builds": [build],
        },
        "pays": [
            {"shape": "base", "k": 6, "dtype": "bfloat16", "device": "cpu", "points": points}
            | {"exact_pays_from_hit_rate": 0.6, "exact_pays_from_hit_rate_without_overlay": None}
        ],
        "hit_before": 0.25,
    }


def test_text_says_the_keys_and_where_exact_pays() -> None:
    text = as_text(_report())
    assert "exact pays from a hit rate of 60.0% (none without miss_cache)" in text
    assert "hit_before: 0.25" in text
    assert "2 (drift)" in text
    assert "whole, backward" in text
    assert "no limit" in text
    assert "91%" not in text
    assert as_text({"hit_before": 1}) == "hit_before: 1"


def test_every_line_is_drawn_within_the_picture() -> None:
    panels = panels_of(_report())
    assert len(panels) == 4
    root = ElementTree.fromstring(draw(panels))  # noqa: S314 - made here
    lines = list(root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) == sum(len(panel.lines) for panel in panels)
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = (float(each) for each in point.split(","))
            assert 0 <= x <= 760
            assert 0 <= y <= 300
    assert ElementTree.fromstring(draw([Panel("nothing", "x", {})])) is not None  # noqa: S314


def test_reason_is_one_line_when_the_text_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(_: object) -> Corpus:
        raise HmiError("there is no text here", code="text_unavailable")

    monkeypatch.setattr("benchmarks.coverage.__main__.four_domains", unavailable)
    with pytest.raises(SystemExit, match=r"^benchmarks\.coverage: there is no text here$"):
        main(["--quick", "--json"])
