"""How much of new text a knowledge tree holds, and from which hit rate on a lookup is faster than computing.

    python -m benchmarks.coverage [--quick] [--json] [--only curve replay tenants pays] [--device cpu]

The text is real and fetched into the user's cache: the demonstration's rated sentences of four domains (pip), and
WordNet's 117,659 glosses in 45 subjects (apt; a Debian is needed). Each text occurs once, in the order of its hash, and
is either counted or looked up: a hit rate is that of text never seen. Tokens are those of MiniLM's tokenizer.

`curve`: four fifths of each domain's texts are counted, and a tree is planned within several budgets; the last fifth is
looked up.

`replay`: both texts as traffic in periods, with a rebuild after each (count, decay, plan). Half-way the traffic drifts:
sentences of movies and news give way to products and tweets, and nine tenths of the glosses are about people and things
instead of nature. `hit_before` is the last period before the drift, `hit_after_drift` the next one, `hit_after_rebuild`
the one after it. `recovered_within_points` is what that lacks of the first.

`tenants`: what privacy costs. The four domains' texts are dealt to 10, 30 and 100 tenants, each of one domain, and a
tree is planned that holds an n-gram only if 1, 2, 3 or 5 different tenants asked for it; every fifth text of a tenant
is looked up. `private` gives each tenant a domain of its own. With `pays`, `exact_over_k0` is the speed at that rate.

`pays`: trees that answer a stated share of the lookups, with random rows and weights. Ratios are over the same model
with k = 0 on the same texts, in alternating rounds. `exact_pays_from_hit_rate` is where the ratio of the last case
reaches 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hmi.process import tune_process

tune_process(os.environ)  # before anything imports torch

import numpy as np  # noqa: E402

from benchmarks.command import as_table, cache_folder, make_parser  # noqa: E402
from benchmarks.coverage.corpora import Corpus, Tokenised, Windows, all_texts, four_domains, glosses  # noqa: E402
from benchmarks.coverage.pays import PaysPlan, measure_pays  # noqa: E402
from benchmarks.coverage.planning import Found, Planner, count, find  # noqa: E402
from benchmarks.coverage.replay import drifting, parents_of, replay  # noqa: E402
from benchmarks.coverage.tenants import measure_tenants  # noqa: E402
from benchmarks.harness import machine  # noqa: E402
from benchmarks.serving import BACKOFF, EXACT, EXACT_NO_CACHE  # noqa: E402
from examples.data import find_pretrained  # noqa: E402
from hmi.devices import resolve_device  # noqa: E402
from hmi.errors import HmiError  # noqa: E402
from hmi.models.convert import convert_pretrained  # noqa: E402
from hmi.models.families import load_tokenizer  # noqa: E402

PARTS = ("curve", "replay", "tenants", "pays")
_K = 3
_JUDGES = 5  # every fifth text is looked up and never counted
_TENANTS, _LEAST = (10, 30, 100), (1, 2, 3, 5)
_PERIODS = 4  # in each half of the replay
_HALF_LIFE = 28.0  # periods: a service rebuilds every 6 hours and halves its counts in 7 days


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="hmi-bench-") as folder:
            report = measure(Path(folder), cache_folder(), options)
    except HmiError as error:
        raise SystemExit(f"benchmarks.coverage: {error.message}") from None
    print(json.dumps(report, indent=1) if options.json else as_text(report))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("coverage", __doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure; default: all")
    return parser.parse_args(argv)


def measure(folder: Path, cache: Path, options: argparse.Namespace) -> dict[str, Any]:
    quick = options.quick
    sentences, definitions = four_domains(cache), _thinned(glosses(cache), 0.2 if quick else 1.0)
    spec = convert_pretrained(find_pretrained(), folder / "minilm", k=_K)
    tokenizer = load_tokenizer(folder / "minilm")
    planner = Planner(spec, "minilm")
    report: dict[str, Any] = {}
    if "curve" in options.only:
        budgets = (1_000, 5_000, 20_000, None) if quick else (500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, None)
        curves = [
            measure_curve(
                corpus, {domain: Windows.of(each, tokenizer) for domain, each in corpus.texts.items()}, planner, budgets
            )
            for corpus in (sentences, definitions)
        ]
        report["curve"] = curves
    if "replay" in options.only:
        tokenised = Tokenised(all_texts((sentences, definitions)), tokenizer)
        report |= measure_replay(sentences, definitions, tokenised, planner, 2_000 if quick else 50_000)
    if "tenants" in options.only:
        by_domain = {domain: Windows.of(each, tokenizer) for domain, each in sentences.texts.items()}
        report["tenants"] = measure_tenants(sentences, by_domain, planner, _TENANTS, _LEAST, _JUDGES)
    if "pays" in options.only:
        cases, rates = (("minilm", 3), ("base", 6)), (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0)
        plan = PaysPlan(options.device, options.dtype, cases, rates, 3, 600, 3_000)
        if quick:
            plan = PaysPlan(options.device, options.dtype, cases[:1], (0.0, 0.4, 0.7, 1.0), 2, 100, 200)
        report["pays"] = measure_pays(folder, (sentences, definitions), tokenizer, plan)
        report["exact_pays_from_hit_rate"] = report["pays"][-1]["exact_pays_from_hit_rate"]
        points = report["pays"][-1]["points"]
        for row in report.get("tenants", ()):
            known = [point["hit_rate"] for point in points], [point[EXACT]["ratio"] for point in points]
            row["exact_over_k0"] = round(float(np.interp(row["hit_rate"], *known)), 3)
    return {**report, "machine": machine(resolve_device(options.device))}


def _thinned(corpus: Corpus, share: float) -> Corpus:
    texts = {domain: each[: max(1, round(len(each) * share))] for domain, each in corpus.texts.items()}
    return dataclasses.replace(corpus, texts=texts)


def measure_curve(
    corpus: Corpus, windows: Mapping[str, Windows], planner: Planner, budgets: tuple[int | None, ...]
) -> dict[str, Any]:
    """Return the hit rate for each budget, in entries of a domain's own table."""
    kept = {domain: len(each) - len(each) // _JUDGES for domain, each in windows.items()}
    counts = {domain: count(each.part(0, kept[domain])) for domain, each in windows.items()}
    queries = {domain: each.part(kept[domain], len(each)) for domain, each in windows.items()}
    points = []
    for budget in budgets:
        tables = planner.plan(counts, corpus.parents, budget).tables
        entries = sum(len(keys) for keys in tables.values())
        found = sum(find(queries, corpus.parents, tables).values(), Found())
        points.append(
            {
                "node_entries": budget,
                "entries": entries,
                "bytes": entries * planner.entry_bytes,
                "hit_rate": round(found.hit_rate, 4),
                "inherited_share": round(found.inherited_share, 4),
            }
        )
    tokens = sum(len(each.keys) for each in windows.values())
    return {"corpus": corpus.name, "texts": sum(map(len, corpus.texts.values())), "tokens": tokens, "points": points}


def measure_replay(
    sentences: Corpus, definitions: Corpus, tokenised: Tokenised, planner: Planner, node_entries: int
) -> dict[str, Any]:
    before, after = drifting(sentences, definitions, _PERIODS)
    periods = [{domain: tokenised.keys(texts) for domain, texts in each.items()} for each in (*before, *after)]
    served = replay(periods, parents_of(sentences), planner, node_entries, _HALF_LIFE)
    rates = [each.found.hit_rate for each in served]
    hits = {
        "hit_before": rates[_PERIODS - 1],
        "hit_after_drift": rates[_PERIODS],
        "hit_after_rebuild": rates[_PERIODS + 1],
        "hit_at_end": rates[-1],
    }
    return {
        "replay": [
            {
                "hit_rate": round(each.found.hit_rate, 4),
                "predicted": None if each.predicted is None else round(each.predicted, 4),
                "inherited_share": round(each.found.inherited_share, 4),
                "rebuilt_entries": each.entries,
                "rebuilt_added": each.added,
            }
            for each in served
        ],
        **{name: round(rate, 4) for name, rate in hits.items()},
        "recovered_within_points": round(100 * (hits["hit_before"] - hits["hit_after_rebuild"]), 2),
    }


def as_text(report: Mapping[str, Any]) -> str:
    """Return the tables, the machine and the plain figures."""
    parts = []
    for curve in report.get("curve", ()):
        title = f"{curve['corpus']}: {curve['texts']:,} texts, {curve['tokens']:,} tokens"
        parts.append("\n".join([title, _table(curve["points"])]))
    if "tenants" in report:
        parts.append("\n".join(["hit rate on new text, by how many tenants must ask", _table(report["tenants"])]))
    if "replay" in report:
        parts.append(_table([{"period": number + 1, **each} for number, each in enumerate(report["replay"])]))
    for case in report.get("pays", ()):
        title = f"{case['shape']}, k = {case['k']}, {case['dtype']} on {case['device']}: ratio to k = 0"
        rows = [
            {"hit_rate": point["hit_rate"], **{name: point[name]["ratio"] for name in (EXACT, EXACT_NO_CACHE, BACKOFF)}}
            for point in case["points"]
        ]
        parts.append("\n".join([title, _table(rows)]))
    parts.append("\n".join(f"{name}: {value}" for name, value in report.items() if not isinstance(value, list)))
    return "\n\n".join(parts)


def _table(rows: list[dict[str, Any]]) -> str:
    return as_table(tuple(rows[0]), [[_cell(name, value) for name, value in row.items()] for row in rows])


def _cell(name: str, value: Any) -> Any:
    if value is None:
        return "-"
    return f"{value:.1%}" if name in {"hit_rate", "predicted", "inherited_share"} else value


if __name__ == "__main__":
    main()
