"""What rows inherited from ancestors save and cost: a domain with a delta of its own, at many tolerances.

    python -m benchmarks.inheritance [--quick] [--json] [--keep FOLDER] [--device cpu] [--dtype bfloat16]

The demonstration's pretrained model with k = 3, and its sentences of four domains. The root and each domain below it
have a delta, a domain's refining the root's; each domain has `seeds` tenants, whose adapters differ in their seed and
were trained on the domain's own rows. Trees hold every n-gram that is asked for, so no row is computed, and every
row that the tolerance lets a domain take from the root is taken: what is lost here is the most that can be.

Of each tolerance:

- `marks`: share of the four domains' n-grams that are stored as "as my ancestor" only.
- `bytes`, `saved`: of the four domains' tables together, the root's left out; its tenants ask for all that the
  domains are asked for. `hoisted_bytes`, `hoisted_saved`: of the whole tree, where the root is asked for
  nothing itself and only holds what two rebuilds hoist to it.
- `error`: mean over lookups of |row given - own row| / |own row|.
- accuracy of each domain, mean of its tenants; `lost` against tolerance 0 as the mean of the domains, with
  its 95 % confidence interval over sentences; `changed`: share of answers with another label than at tolerance 0.

`no deltas` (`without`) are tenants of the same text, seeds and base whose domains have no deltas at all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

from hmi.process import tune_process

tune_process(os.environ)  # before anything imports torch

import torch  # noqa: E402

from benchmarks.harness import machine  # noqa: E402
from benchmarks.inheritance.learning import Learner  # noqa: E402
from benchmarks.inheritance.measure import measure  # noqa: E402
from benchmarks.inheritance.plan import FULL, QUICK, domain_texts  # noqa: E402
from benchmarks.inheritance.report import as_text, make_report  # noqa: E402
from benchmarks.options import add_options, cache_folder  # noqa: E402
from examples.demo import fetch_sentences, read_sentences  # noqa: E402
from hmi.devices import resolve_device  # noqa: E402


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    plan = QUICK if options.quick else FULL
    archive, _ = fetch_sentences(options.cache)
    texts = domain_texts(read_sentences(archive), plan)
    with tempfile.TemporaryDirectory() as passing:
        folder = options.keep or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        device = str(resolve_device(options.device))
        learner = Learner(folder, plan, texts, device, options.dtype, say=_say)
        measured = measure(learner, learner.learn(), _say)
    report = {
        **make_report(measured),
        "plan": dataclasses.asdict(plan),
        "sentences": {domain: [len(text.training), len(text.test)] for domain, text in texts.items()},
        "machine": machine(torch.device(measured.device)),
    }
    print(json.dumps(report, indent=1) if options.json else as_text(report))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="where what is learnt stays for the next run of the same plan"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", default=cache_folder(), help="where the sentences are kept"
    )
    return parser.parse_args(argv)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
