from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from hmi.cli.render import difference, domain_tree, knowledge_tree, related, top_ngrams, versions_list
from hmi.cli.render.ngrams import readable
from hmi.cli.render.tree import ago, count_words, percent
from hmi.schemas import (
    DomainDiffObject,
    DomainTableObject,
    NgramObject,
    NgramPage,
    NgramText,
    TreeBuild,
    TreeDiffObject,
    TreeObject,
    TreeProgress,
    TreeVersionObject,
)
from tests.answers import filled

NOW = 1_800_000_000.0


def drawn(what: RenderableType, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().rstrip().splitlines()]


def tree(**fields: Any) -> TreeObject:
    return filled(TreeObject, **({"base": "b", "k": 3} | fields))


def table(**fields: Any) -> DomainTableObject:
    return filled(DomainTableObject, **({"usable": True} | fields))


def ngram(number: str, text: str, count: float) -> NgramText:
    return filled(NgramText, id=number, text=text, count=count)


def a_tree() -> TreeObject:
    """Everything at its widest."""
    full = {"lookups": 123_456_789, "hits": 110_000_000, "inherited": 40_000_000, "approximate": 123_456_789}
    domains = {
        "general": table(entries=30_522, bytes=11_800_000),
        "reviews": table(
            parent="general",
            entries=1_234_567,
            aliases=99_999,
            bytes=999_900_000,
            predicted_hit_rate=1.0,
            **full,
        ),
        "movies": table(
            parent="reviews",
            entries=99_999,
            aliases=1_000,
            bytes=38_000_000,
            predicted_hit_rate=0.873,
            delta="ab" * 32,
            **full,
        ),
        "products": table(parent="reviews", lookups=10, hits=1),
        "news": table(parent="general", entries=10, bytes=3_880, lookups=1000, hits=873),
    }
    building = filled(
        TreeBuild, number=4, created_at=NOW - 300, progress=TreeProgress(stage="compute", done=1200, total=5000)
    )
    return filled(
        TreeObject, base="minilm-k3", k=3, number=3, published_at=NOW - 3 * 3600, building=building, domains=domains
    )


@pytest.mark.parametrize(
    ("parents", "expected"),
    [
        (
            {"movies": "reviews", "general": None, "products": "reviews", "news": "general", "reviews": "general"},
            ["general", "├── news", "└── reviews", "    ├── movies", "    └── products"],
        ),
        ({"a": None, "b": "a", "c": "b", "d": "a"}, ["a", "├── b", "│   └── c", "└── d"]),
        ({}, ["no domains"]),
        ({"a": None, "b": None}, ["domains", "├── a", "└── b"]),
        ({"movies": "a parent that was left out"}, ["movies"]),
    ],
)
def test_domains_hang_under_their_parents_when_drawn(parents: dict[str, str | None], expected: list[str]) -> None:
    assert drawn(domain_tree(parents)) == expected


def test_a_note_stands_behind_its_domain() -> None:
    assert drawn(domain_tree({"a": None, "b": "a"}, {"b": "acme alone"}))[-1].endswith("b (acme alone)")


def test_every_figure_of_a_domain_stands_in_its_column_in_80_columns() -> None:
    lines = drawn(knowledge_tree(a_tree(), NOW))
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("minilm-k3: tree 3, published 20")
    assert lines[0].endswith(", 3 h ago")
    assert lines[1] == "1,365,098 n-grams, 100,999 aliases, 1.0 GB"
    assert lines[2] == "building tree 4, begun 5 min ago: computing new rows, 1,200 of 5,000 (24%)"
    assert lines[3].split() == [
        "domain",
        "n-grams",
        "aliases",
        "bytes",
        "lookups",
        "hit",
        "pred.",
        "own",
        "appr.",
        "delta",
    ]
    cells = {line.split("── ")[-1].split()[0]: line.split("── ")[-1].split()[1:] for line in lines[5:]}
    assert cells["reviews"] == ["1.23M", "99,999", "999.9", "MB", "123M", "89.1%", "100.0%", "64%", "100%", "-"]
    assert cells["movies"][-3:] == ["64%", "100%", "ababab"]
    assert cells["general"] == ["30,522", "-", "11.8", "MB", "-", "-", "-", "-", "-", "-"]
    assert lines[6].startswith("├── news ")


def test_columns_are_left_out_when_no_domain_has_the_figure() -> None:
    plain = tree(number=1, domains={"general": table(entries=5, bytes=100)})
    assert drawn(knowledge_tree(plain))[2].split() == ["domain", "n-grams", "bytes"]


def test_a_tree_says_so_when_none_is_published() -> None:
    lines = drawn(knowledge_tree(tree(domains={"general": table()})))
    assert lines[0] == "b: no tree is published yet"
    assert lines[-1].split()[0] == "general"


def test_a_base_model_has_no_tree_when_k_is_0() -> None:
    lines = drawn(knowledge_tree(tree(k=0, domains={"general": table()})))
    assert lines == ["b: its k is 0, so there is no tree"]


def test_domains_are_named_when_their_tables_are_not_used() -> None:
    domains = {
        "general": table(),
        "movies": table(parent="general", usable=False),
    }
    assert drawn(knowledge_tree(tree(number=1, domains=domains)), 100)[-1] == (
        "not used until the next rebuild, since deltas or parents changed: movies"
    )


def test_a_tree_says_so_when_it_was_rolled_back() -> None:
    assert "(rolled back)" in drawn(knowledge_tree(tree(number=1, rolled_back=True)))[0]


def test_only_ancestors_and_descendants_stay_when_one_domain_is_selected() -> None:
    assert set(related(a_tree(), "reviews").domains) == {"general", "reviews", "movies", "products"}
    assert set(related(a_tree(), "movies").domains) == {"general", "reviews", "movies"}


def test_a_version_says_what_its_build_did() -> None:
    report = {
        "seconds": 12.34,
        "domains": {
            "general": {
                "entries": 10,
                "added": 4,
                "dropped": 1,
                "hoisted": 2,
                "copied": 6,
                "computed": 4,
                "bytes": 4000,
            },
            "movies": {"entries": 5, "added": 5, "aliases": 3, "computed": 5, "bytes": 2000, "bytes_before": 1000}
            | {"waiting": 1200, "unknown": 30},
        },
    }
    versions = [
        filled(
            TreeVersionObject, number=5, status="building", created_at=NOW,
            progress=TreeProgress(stage="write", done=1, total=4),
        ),
        filled(TreeVersionObject, number=4, status="failed", created_at=NOW - 120, error="disk full"),
        filled(TreeVersionObject,
            number=3, status="ready", served=True, published_at=NOW - 7200, report=report, lookups=1000, hits=861,
            predicted_hit_rate=0.873,
        ),
        filled(TreeVersionObject, number=2, status="ready", published_at=NOW - 86_400 * 9),
    ]  # fmt: skip
    assert drawn(versions_list(versions, NOW)) == [
        "  tree 5  building: begun 0 s ago, writing tables, 1 of 4 (25%)",
        "  tree 4  failed (begun 2 min ago): disk full",
        "* tree 3  published 2 h ago, built in 12.3 s  serves",
        "    9 added, 1 dropped, 2 hoisted, 6 copied, 9 computed",
        "    15 n-grams, 3 aliases, 1.0 kB -> 6.0 kB",
        "    1,200 n-grams wait for more tenants",
        "    30 n-grams are left out: it is not known who asked (hmi tree declare-public)",
        "    hit rate 86.1% of 1,000 lookups, 87.3% predicted",
        "  tree 2  published 9 days ago",
        "    hit rate not predicted, nothing was looked up yet",
    ]


def test_ngrams_are_listed_with_where_they_are_held() -> None:
    page = filled(
        NgramPage,
        base="minilm-k3",
        domain="movies",
        number=3,
        ngrams=12_345,
        waiting=1_000,
        unknown=7,
        data=[
            filled(NgramObject, id="1", text="[CLS] the film", count=1234.56, held="own", holder="movies"),
            filled(NgramObject, id="2", text="of the", count=99, held="inherited", holder="general"),
            filled(NgramObject, id="3", text="film . [SEP]", count=9, held="alias", holder="general"),
            filled(NgramObject, id="4", text="[red]\x1b[31m\n", count=0.5, held="missing"),
        ],
    )
    lines = drawn(top_ngrams(page))
    assert lines[:3] == [
        "movies on minilm-k3: 12,345 n-grams, tree 3",
        "1,000 others wait for more tenants",
        "of 7 others it is not known who asked",
    ]
    del lines[1:3]
    assert [line.split("  ")[0].strip() for line in lines[3:]] == [
        "[CLS] the film", "of the", "film . [SEP]", r"[red]\x1b[31m\n",
    ]  # fmt: skip
    assert [line.split()[-1] for line in lines[3:]] == ["row", "general", "general", "missing"]
    assert "1,234.6   own row" in lines[3]


def test_a_difference_has_a_line_for_each_domain_and_its_heaviest_ngrams() -> None:
    movies = filled(DomainDiffObject,
        parent="general", entries_before=1_000_000, entries_after=1_100_000, aliases_before=5, aliases_after=0,
        bytes_before=388_000_000, bytes_after=420_000_000, added=200_000, dropped=100_000, moved_in=12_000, moved_out=7,
        heaviest_added=[ngram("1", "a new film", 1200.5), ngram("2", "film", 3)],
        heaviest_dropped=[ngram("3", "old", 0)],
    )  # fmt: skip
    same = filled(DomainDiffObject, entries_before=30_522, entries_after=30_522, bytes_before=100, bytes_after=100)
    found = filled(TreeDiffObject, base="minilm-k3", before=3, after=4, domains={"general": same, "movies": movies})
    lines = drawn(difference(found))
    assert max(map(len, lines)) <= 80
    assert lines[0] == "minilm-k3: tree 3 -> tree 4"
    assert lines[3].split() == ["general", "-", "-", "-", "-", "30,522", "0", "100", "bytes"]
    assert lines[4].split() == [
        "└──", "movies", "200k", "100k", "12,000", "7", "1M→1.1M", "5→0", "388.0→420.0", "MB",
    ]  # fmt: skip
    assert lines[5:] == [
        "",
        "movies: 200,000 added, the heaviest 2",
        "  1,200.5  a new film",
        "      3.0  film",
        "",
        "movies: 100,000 dropped, the heaviest 1",
        "  0.0  old",
    ]


def test_a_difference_keeps_names_whole_in_80_columns() -> None:
    change = filled(DomainDiffObject,
        parent="reviews", entries_before=33_910, entries_after=168_031, aliases_before=2_110, aliases_after=8_555,
        bytes_before=219_800, bytes_after=955_900, added=140_300, moved_in=3_997, moved_out=1_831,
    )  # fmt: skip
    new = filled(DomainDiffObject, parent="general", entries_after=99_960, bytes_after=255_600_000)
    domains = {"general": filled(DomainDiffObject), "reviews": new, "horror_fun": change}
    lines = drawn(difference(filled(TreeDiffObject, base="b", before=6, after=8, domains=domains)))
    assert lines[1].split() == ["domain", "added", "in", "out", "n-grams", "aliases", "bytes"]
    assert lines[4].split() == ["└──", "reviews", "-", "-", "-", "0→99,960", "0", "0→255.6", "MB"]
    assert lines[5].split() == [
        "└──", "horror_fun", "140k", "3,997", "1,831", "33.9k→168k", "2.1k→8.6k", "219.8→955.9", "kB",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 80
    still = drawn(
        difference(filled(TreeDiffObject, base="b", before=6, after=6, domains={"general": filled(DomainDiffObject)}))
    )
    assert still[1].split() == ["domain", "added", "n-grams", "bytes"]


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0"), (99_999, "99,999"), (100_000, "100k"), (999_499, "999k"), (999_500, "1M"), (1_234_567, "1.23M"),
     (123_456_789, "123M"), (5e9, "5G")],
)  # fmt: skip
def test_counts_take_six_characters_at_most(count: float, words: str) -> None:
    assert count_words(count) == words
    assert len(words) <= 6


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s ago"), (59, "59 s ago"), (150, "2 min ago"), (7300, "2 h ago"), (200_000, "2 days ago")],
)
def test_moments_are_shown_as_time_since(seconds: float, words: str) -> None:
    assert ago(NOW - seconds, NOW) == words


def test_share_of_nothing_is_a_dash() -> None:
    assert (percent(0, 0), percent(1, 3), percent(1, 3, digits=0)) == ("-", "33.3%", "33%")


def test_letters_of_any_alphabet_stay_when_text_is_made_readable() -> None:
    assert readable("filmé 映画 ▁the") == "filmé 映画 ▁the"
    assert readable("a\tb\u200b\x07") == r"a\tb\u200b\x07"
