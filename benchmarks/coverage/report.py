"""The report for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.coverage.serving import BACKOFF, EXACT, EXACT_ALONE, ORDINARY
from benchmarks.tables import as_table

__all__ = ["as_text"]

_BAR = 40  # characters of a bar of 100 %
_POLICIES = (EXACT, EXACT_ALONE, BACKOFF)


def as_text(report: Mapping[str, Any]) -> str:
    """Tables, the machine and the keys that the report is asked for."""
    parts = [*map(_curve, report.get("curve", ()))]
    if "drift" in report:
        parts.append(_drift(report["drift"]))
    parts += map(_pays, report.get("pays", ()))
    plain = [f"{key}: {value}" for key, value in report.items() if key not in {"curve", "drift", "pays"}]
    return "\n\n".join([*parts, "\n".join(plain)])


def _curve(curve: Mapping[str, Any]) -> str:
    title = (
        f"{curve['corpus']}: {curve['texts']:,} texts, {curve['tokens']:,} tokens; of {curve['distinct']:,} windows "
        f"counted, {curve['seen_once_share']:.0%} were seen once"
    )
    rows = [
        [
            _budget(point["node_entries"]),
            f"{point['entries']:,}",
            _megabytes(point["bytes"]),
            _percent(point["hit_rate"]),
            _percent(point["own_share"]),
            _percent(point["inherited_share"]),
            _bar(point["hit_rate"]),
        ]
        for point in curve["points"]
    ]
    header = ["entries a node", "entries", "MB", "hit rate", "own", "inherited", "".ljust(_BAR)]
    growth = [
        [
            each["domain"],
            f"{each['tokens'][-1]:,}",
            f"{each['distinct'][-1]:,}",
            *(_percent(each["hit_rate"][-1 - back]) if back < len(each["hit_rate"]) else None for back in (4, 2, 1, 0)),
            each["points_per_doubling"],
            f"{each['tokens_for_two_thirds']:.1e}",
        ]
        for each in curve["growth"]
    ]
    grown = [
        "its own table",
        "tokens",
        "entries",
        "a 16th",
        "a quarter",
        "a half",
        "all",
        "points/doubling",
        "tokens for 2/3",
    ]
    return "\n".join([title, as_table(header, rows), "", as_table(grown, growth)])


def _drift(drift: Mapping[str, Any]) -> str:
    half = drift["periods_in_each_half"]
    rows = [
        [
            f"{number + 1}{' (drift)' if number == half else ''}",
            _percent(each["hit_rate"]),
            _percent(each["hit_rate_without_drift"]),
            _percent(each["predicted"]),
            _percent(each["inherited_share"]),
            f"{each['rebuilt_entries']:,}",
            f"{each['rebuilt_added']:,}",
            _bar(each["hit_rate"]),
        ]
        for number, each in enumerate(drift["periods"])
    ]
    title = (
        f"replay: a rebuild after each period of {drift['lookups_in_a_period']:,} lookups, "
        f"{drift['node_entries']:,} entries a node"
    )
    header = ["period", "hit rate", "no drift", "predicted", "inherited", "rebuilt", "new in it", "".ljust(_BAR)]
    ways = [
        *(("partial, forward", each["half_life_periods"], each) for each in drift["half_lives"]),
        *(
            (f"{each['drift']}, {'backward' if each['backward'] else 'forward'}", half_life, each)
            for half_life in [drift["half_lives"][0]["half_life_periods"]]
            for each in drift["drifts"]
        ),
    ]
    replays = [
        [
            way,
            "none" if half_life is None else f"{half_life:g}",
            *(_percent(each[f"hit_{moment}"]) for moment in ("before", "after_drift", "after_rebuild", "at_end")),
            each["recovered_within_points"],
        ]
        for way, half_life, each in ways
    ]
    compared = ["drift", "half-life, periods", "before", "after drift", "rebuilt", "at the end", "points short"]
    moments = [
        [moment, name, _percent(rate["hit_rate"]), rate["tokens_s"], rate["ratio"], rate["computed"]]
        for moment, rates in drift["throughput"].items()
        for name, rate in rates.items()
    ]
    built = [
        [
            str(each["number"]),
            f"{each['entries']:,}",
            _megabytes(each["bytes"]),
            f"{each['copied']:,}",
            f"{each['computed']:,}",
            each["seconds"],
        ]
        for each in drift["builds"]
    ]
    return "\n".join(
        [
            title,
            as_table(header, rows),
            "",
            as_table(compared, replays),
            "",
            as_table(["engine", "policy", "hit rate", "tokens/s", "over k = 0", "computed/token"], moments),
            "",
            as_table(["version", "entries", "MB", "copied", "computed", "seconds"], built),
        ]
    )


def _pays(case: Mapping[str, Any]) -> str:
    rows = [
        [
            _percent(point["hit_rate"]),
            *(point[name]["tokens_s"] for name in (*_POLICIES, ORDINARY)),
            *(point[name]["ratio"] for name in _POLICIES),
            point[EXACT]["computed"],
            point[EXACT_ALONE]["computed"],
        ]
        for point in case["points"]
    ]
    header = [
        "hit rate",
        *(f"{name} tok/s" for name in (*_POLICIES, ORDINARY)),
        *(f"{name} ratio" for name in _POLICIES),
    ]
    header += ["computed/token", "no miss_cache"]
    title = (
        f"{case['shape']}, k = {case['k']}, {case['dtype']} on {case['device']}: exact pays from a hit rate of "
        f"{_or_never(case['exact_pays_from_hit_rate'])} "
        f"({_or_never(case['exact_pays_from_hit_rate_without_overlay'])} without miss_cache)"
    )
    return "\n".join([title, as_table(header, rows)])


def _or_never(rate: float | None) -> str:
    return "none" if rate is None else _percent(rate) or ""


def _budget(entries: int | None) -> str:
    return "no limit" if entries is None else f"{entries:,}"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"


def _bar(share: float) -> str:
    return ("█" * round(share * _BAR)).ljust(_BAR)
