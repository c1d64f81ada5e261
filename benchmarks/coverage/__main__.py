"""How much of new text a knowledge tree holds, what a drift does to that, and from which hit rate on it pays.

    python -m benchmarks.coverage [--quick] [--json] [--picture FILE] [--only curve drift pays] [--device cpu]

The text is real, fetched into the user's cache and committed nowhere: the demonstration's rated sentences of four
domains (pip), and WordNet's 117,659 glosses in 45 subjects (apt; a Debian is needed). Every text stands in it once,
in an order that its hash decides, and is either counted or asked for: a hit rate is always that of text never seen.
Tokens are those of MiniLM's tokenizer, which is BERT's.

`curve`: four fifths of each domain's texts are counted, and a tree is planned within several budgets; the last fifth is
looked up. `own` and `inherited` are shares of the hits. Below it, how a domain's own table grows with the text counted,
every window kept: the points of hit rate that twice the text adds, and, by continuing that line, the tokens that would
bring it to two thirds. That is the worth of a tree; the farther it lies beyond the text, the less it is to be trusted.

`drift`: both texts as traffic in time order, in periods, with a rebuild after each as the worker does it (counter,
faded counts, plan, build, publish). Half-way the traffic drifts: sentences of movies and news give way to products
and tweets, and nine tenths of the glosses are about people and things instead of nature. `hit_before` is the last
period's before the drift; `hit_after_drift` is the next one's, with a tree that knows nothing of the drift; and
`hit_after_rebuild` that of the period after the next rebuild. `recovered_within_points` is what it lacks of the first
(negative: it is better). Counting is simulated on the text; the throughput is that of engines, which serve new texts
of these three periods with real trees of the real MiniLM, each built from the one before.

`pays`: trees that hold a stated share of the windows asked for, most frequent first, with random rows and weights. What
lies above the curve's hit rates can only be had by putting the very texts that are asked for into the tree. Ratios
are over the same model with k = 0 on the same texts in the same turns; `exact_pays_from_hit_rate` is where the ratio
reaches 1 in the last case, with an engine's default miss_cache, which has served other texts before.

All items are embeddings of the base model, without adapters.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hmi.process import tune_process

tune_process(os.environ)  # before anything imports torch

from benchmarks.coverage.corpora import Corpus, four_domains, glosses  # noqa: E402
from benchmarks.coverage.drift import measure_drift  # noqa: E402
from benchmarks.coverage.lookup_pays import measure_pays  # noqa: E402
from benchmarks.coverage.picture import draw, panels_of  # noqa: E402
from benchmarks.coverage.plan import FULL, PARTS, QUICK, CoveragePlan  # noqa: E402
from benchmarks.coverage.planning import Planner  # noqa: E402
from benchmarks.coverage.report import as_text  # noqa: E402
from benchmarks.coverage.worth import measure_worth  # noqa: E402
from benchmarks.harness import add_options, machine  # noqa: E402
from benchmarks.options import cache_folder  # noqa: E402
from examples.demo import find_pretrained  # noqa: E402
from hmi.devices import resolve_device  # noqa: E402
from hmi.errors import HmiError  # noqa: E402
from hmi.models.convert import convert_pretrained  # noqa: E402
from hmi.models.families import load_tokenizer  # noqa: E402

_K = 3  # of the model whose rows the curve counts bytes of


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    plan = (QUICK if options.quick else FULL).with_changes(
        device=options.device, dtype=options.dtype, parts=tuple(options.only)
    )
    try:
        with tempfile.TemporaryDirectory(prefix="hmi-bench-") as folder:
            report = _measure(Path(folder), cache_folder(), plan)
    except HmiError as error:
        raise SystemExit(f"benchmarks.coverage: {error.message}") from None
    if options.picture:
        options.picture.write_text(draw(panels_of(report)), encoding="utf-8")
    print(json.dumps(report, indent=1) if options.json else as_text(report))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.coverage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure; default: all")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the curves as SVG")
    return parser.parse_args(argv)


def _measure(folder: Path, cache: Path, plan: CoveragePlan) -> dict[str, Any]:
    sentences, definitions = four_domains(cache), _thinned(glosses(cache), plan.gloss_share)
    spec = convert_pretrained(find_pretrained(), folder / "curve", k=_K)
    tokenizer = load_tokenizer(folder / "curve")
    report: dict[str, Any] = {}
    if "curve" in plan.parts:
        planner = Planner(spec, "curve")
        report["curve"] = [measure_worth(each, tokenizer, planner, plan) for each in (sentences, definitions)]
    if "drift" in plan.parts:
        report["drift"] = measure_drift(folder, sentences, definitions, tokenizer, plan)
    if "pays" in plan.parts:
        report["pays"] = measure_pays(folder, (sentences, definitions), tokenizer, plan)
    return {**report, **_keys(report), "rounds": plan.rounds, "machine": machine(resolve_device(plan.device))}


def _thinned(corpus: Corpus, share: float) -> Corpus:
    texts = {domain: each[: max(1, round(len(each) * share))] for domain, each in corpus.texts.items()}
    return dataclasses.replace(corpus, texts=texts)


def _keys(report: dict[str, Any]) -> dict[str, Any]:
    """What the figures are kept under from run to run."""
    keys: dict[str, Any] = {}
    if "drift" in report:
        names = ("hit_before", "hit_after_drift", "hit_after_rebuild", "recovered_within_points")
        keys |= {name: report["drift"][name] for name in names}
    if "pays" in report:
        keys["exact_pays_from_hit_rate"] = report["pays"][-1]["exact_pays_from_hit_rate"]
    return keys


if __name__ == "__main__":
    main()
