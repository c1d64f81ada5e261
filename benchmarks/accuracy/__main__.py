"""What looking the lower layers up costs in accuracy: four domains, the full model beside hPLMs at k = 1, 2, 3.

    python -m benchmarks.accuracy --keep FOLDER     # all of it: hours on two cores, and resumes where it was stopped
    python -m benchmarks.accuracy --k 3 --json
    python -m benchmarks.accuracy --quick           # a minute: that everything runs, nothing about accuracy

All systems get the same adapter kind and rank, three seeds, and the same number of epochs; `carried_*`, which start
from the full model's adapter, get half as many more, and so does `full_longer`. All are judged by the test part of the
four-domain sentences, in one table that is made once; `--part dev` is for choices. All answers come from the engine.

In the JSON `mean_gap_exact` and `mean_gap_backoff` are those of `carried_*`, which is how a tenant comes over from an
ordinary model: points below `full`, the mean of four domains. `gaps` has them for every system.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hmi.process import tune_process

tune_process(os.environ)  # before anything imports torch

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from benchmarks.accuracy.asking import ask, measure_speed  # noqa: E402
from benchmarks.accuracy.learning import Learner  # noqa: E402
from benchmarks.accuracy.plan import FULL, QUICK, DomainText, Plan, System, domain_texts  # noqa: E402
from benchmarks.accuracy.report import as_text, k_report, score  # noqa: E402
from benchmarks.command import cache_folder, make_parser, report_progress  # noqa: E402
from benchmarks.harness import machine  # noqa: E402
from examples.data import Part, fetch_sentences, read_sentences  # noqa: E402
from hmi.devices import resolve_device  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    plan = QUICK if options.quick else FULL
    plan = dataclasses.replace(plan, ks=tuple(options.k or plan.ks), seeds=options.seeds or plan.seeds)
    cache = options.cache
    archive, _ = fetch_sentences(cache)
    texts = domain_texts(read_sentences(archive), plan, Part(options.part))
    with _kept(options.keep, plan) as folder:
        learner = Learner(folder, cache, plan, texts, options.device, options.dtype, report_progress)
        learner.learn()
        report_progress("asking")
        report = _measure(learner, options.part)
    print(json.dumps(report, indent=1) if options.json else as_text(report))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("accuracy", __doc__)
    parser.add_argument("--k", type=int, nargs="+", help="lower layers that are looked up (default: 1 2 3)")
    parser.add_argument("--seeds", type=int, help="tenants of each domain")
    parser.add_argument("--part", choices=[Part.DEV.value, Part.TEST.value], default=Part.TEST.value)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where what is learnt stays for the next run")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", default=cache_folder(), help="of texts and bases")
    options = parser.parse_args(arguments)
    options.device = str(resolve_device(options.device))
    return options


@contextlib.contextmanager
def _kept(keep: Path | None, plan: Plan) -> Iterator[Path]:
    """Raises `SystemExit` where the folder was filled by another plan."""
    if keep is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    keep.mkdir(parents=True, exist_ok=True)
    note = keep / "plan.txt"
    budget = repr(dataclasses.replace(plan, ks=(), seeds=0))  # more of either only adds to what is there
    if note.exists() and note.read_text() != budget:
        sys.exit(f"{keep} was filled by a run with another plan; take another folder")
    note.write_text(budget)
    yield keep


def _measure(learner: Learner, part: str) -> dict[str, Any]:
    texts = learner.texts
    full = ask(learner, 0, (System.FULL, System.FULL_LONGER))
    ks = {}
    for k in learner.plan.ks:
        asked = {System.UPPER: ask(learner, k, (System.UPPER,))}
        looked_up = [system for system in System if system.looks_up]
        for has_delta in (False, True):
            systems = tuple(system for system in looked_up if system.has_delta is has_delta)
            found = ask(learner, k, systems)
            asked.update(dict.fromkeys(systems, found))
        ks[str(k)] = k_report(full.answers, asked, texts, measure_speed(learner, k))
    return {
        "part": part,
        "plan": {**dataclasses.asdict(learner.plan), "kind": learner.plan.kind.value},
        "sentences": {domain: {"training": len(t.training), "asked": len(t.asked)} for domain, t in texts.items()},
        "machine": machine(resolve_device(learner.device)),
        "baselines": {
            name: {domain: dataclasses.asdict(score([guess(text)], text.truth)) for domain, text in texts.items()}
            for name, guess in (("majority", majority), ("tf_idf", tf_idf))
        },
        "k": ks,
    }


def majority(text: DomainText) -> NDArray[np.str_]:
    """The most frequent label of the training part, for every sentence."""
    counts = Counter(each.label for each in text.training)
    usual = min(counts, key=lambda label: (-counts[label], label))
    return np.array([usual] * len(text.asked))


def tf_idf(text: DomainText) -> NDArray[np.str_]:
    """Words and pairs of words, TF-IDF, logistic regression: scikit-learn's own, with its defaults."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - a second of import
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    classifier = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=1000)
    )
    classifier.fit([each.text for each in text.training], [each.label for each in text.training])
    return np.array([str(label) for label in classifier.predict([each.text for each in text.asked])])


if __name__ == "__main__":
    main()
