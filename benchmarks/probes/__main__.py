"""What the time of an answer says about the miss cache: can a tenant tell what another one just asked for?

    python -m benchmarks.probes [--quick] [--json] [--shape tiny] [--probes 10000] [--batches 60]

Under `exact`, an answer's bytes depend on no tree and no cache, but its time does: rows that a miss has computed are
kept. A tenant probes one sentence after the other, on an engine that does nothing else, and measures each from its
submission to its outcome. Sentences are of three classes, in random order:

- `table`: all n-grams are in a published table;
- `kept`: another tenant asked for the same sentence just before, so the miss cache has its rows;
- `unknown`: no tenant asked for it.

Before each probe another tenant asks for something, so that all classes follow the same work. `sentence`: all ten
windows are of the class. `pair`: a frame of a table in which two words (four windows) are.

`auc` is the probability that a kept sentence is answered sooner than an unknown one (0.5: time says nothing).
`probes_for_95` is how many sentences of one class it takes to name the class correctly in 95 of 100 cases, by the
likelihood ratio of their times. They are different sentences: a probe puts its own windows into the cache, so that the
same one can be asked again only after it was evicted. `batch`: the same of one batch of 64 sentences, with one or all
kept, when only the batch's time is seen.

`service`: jobs of one sentence through API, queue and worker, timed by the client; and the seconds between the API's
own timestamps, which are whole ones. `sharing`: the price of leaving less to probe: speed and hit rate of the miss
cache if each of ten tenants has its own, and with none (`HMI_MISS_CACHE_BYTES=0`), on texts that the tree half knows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import as_table, cache_folder, make_parser, report_progress
from benchmarks.harness import machine
from benchmarks.probes.engine import Prober, measure_engine
from benchmarks.probes.separation import PERCENTILES
from benchmarks.probes.service import measure_service
from benchmarks.probes.sharing import measure_sharing
from examples.data import fetch_sentences, find_pretrained, read_sentences
from hmi.bench import SHAPES, make_base, random_texts
from hmi.engine import EngineConfig
from hmi.models.convert import convert_pretrained


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    config = EngineConfig(device=options.device, dtype=options.dtype)
    report: dict[str, Any] = {"probes": options.probes, "batches": options.batches, "shapes": {}}
    with tempfile.TemporaryDirectory() as name:
        for shape in options.shape:
            report_progress(shape)
            base = _make(Path(name), shape)
            prober = Prober(Path(name), base, options.probes, config)
            with prober.server as server:
                found = measure_engine(prober, options.probes, options.batches)
                report["dtype"] = str(server.engine.dtype).removeprefix("torch.")
                report["machine"] = machine(server.engine.device)
            if options.jobs:
                report_progress(f"{shape}, service")
                found["service"] = measure_service(Path(name) / f"{shape}-service", base, prober, options.jobs)
            texts = _sentences() if shape == "minilm" else random_texts(options.texts)
            found["sharing"] = measure_sharing(Path(name) / f"{shape}-sharing", base, texts[: options.texts], config)
            report["shapes"][shape] = found
    print(json.dumps(report, indent=1) if options.json else _as_text(report))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("probes", __doc__)
    parser.add_argument("--shape", action="append", choices=("tiny", "minilm"), help="default: both")
    parser.add_argument("--probes", type=int, help="of each form; default: 10000, with --quick 600")
    parser.add_argument("--batches", type=int, help="of each kind; default: 60, with --quick 10")
    parser.add_argument("--jobs", type=int, help="of each class, through the service; default: 100, with --quick 5")
    parser.add_argument("--texts", type=int, help="of `sharing`; default: 6000, with --quick 600")
    options = parser.parse_args(argv)
    options.shape = options.shape or ["tiny", "minilm"]
    options.probes = options.probes or (600 if options.quick else 10_000)
    options.jobs = (5 if options.quick else 100) if options.jobs is None else options.jobs
    options.texts = options.texts or (600 if options.quick else 6_000)
    options.batches = options.batches or (10 if options.quick else 60)
    return options


def _make(folder: Path, shape: str) -> Path:
    base = folder / shape
    if shape == "minilm":
        convert_pretrained(find_pretrained(), base, k=3)
    else:
        make_base(base, SHAPES[shape], 2)
    return base


def _sentences() -> list[str]:
    """Of the four domains, each once, in random order."""
    archive, _ = fetch_sentences(cache_folder())
    texts = dict.fromkeys(each.text for domain in read_sentences(archive).values() for each in domain)
    return [str(text) for text in np.random.default_rng(0).permutation(list(texts))]


def _as_text(report: dict[str, Any]) -> str:
    lines = [f"{report['probes']} probes, {report['dtype']}, {report['machine']}"]
    columns = [f"p{each}" for each in PERCENTILES]
    for shape, found in report["shapes"].items():
        parts = {form: part for form, part in found.items() if "ms" in part}
        times = [
            (f"{form}: {name}", *(each[column] for column in columns))
            for form, part in parts.items()
            for name, each in part["ms"].items()
        ]
        separations = [
            (f"{form}: {name}", each["auc"], each["probes_for_95"])
            for form, part in parts.items()
            for name, each in part.items()
            if isinstance(each, dict) and "auc" in each
        ]
        sharing = [(name, each["hit_rate"], each["ratio"]) for name, each in found["sharing"].items()]
        lines += ["", as_table((f"{shape}, ms", *columns), times)]
        lines += ["", as_table((shape, "auc", "probes for 95 %"), separations)]
        lines += ["", as_table((f"{shape}, miss cache", "hit rate", "ratio"), sharing)]
        if "service" in found:
            lines += ["", f"seconds by timestamps, and jobs: {found['service']['seconds_by_timestamps']}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
