"""What looking a decoder's lower layers up costs in perplexity and gains in speed: SmolLM2 at k = 2, 4, 6.

    python -m benchmarks.perplexity --device cuda --keep FOLDER    # half an hour on a GPU, and resumes where it stopped
    python -m benchmarks.perplexity --k 4 --json
    python -m benchmarks.perplexity --quick                        # a minute: that everything runs

SmolLM2-135M-Instruct's lower layers see windows, and are distilled from the unchanged model on WordNet's glosses and on
the training part of the four-domain sentences, in paragraphs of about a hundred words. Every twentieth paragraph is
held back: its perplexity to the hGPT, with rows rounded as they are stored, stands beside that to the original.

Speed is the engine's: sequences read and continued, tokens made in a second over those of k = 0 in the same run, with a
tree that knows no window, so that every row is computed, and with one that knows all of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hmi.process import tune_process

tune_process(os.environ)  # before anything imports torch

from benchmarks.command import as_table, cache_folder, make_parser  # noqa: E402
from benchmarks.glosses import fetch_glosses, read_glosses  # noqa: E402
from benchmarks.harness import machine  # noqa: E402
from benchmarks.perplexity.speed import FULL_SPEED, QUICK_SPEED, measure_speed  # noqa: E402
from examples.data import Part, fetch_sentences, fetch_smollm, read_sentences  # noqa: E402
from hmi.cli.render import ProgressBar  # noqa: E402
from hmi.devices import resolve_device  # noqa: E402
from hmi.spec import Family, RowDtype  # noqa: E402
from hmi.training.distill import BaseReport, DistillConfig, build_base, default_distill_config  # noqa: E402

RECIPE = dataclasses.replace(default_distill_config(Family.LLAMA), steps=1200)
_WORDS = 100  # of a paragraph
_STAGES = ("original", "converted", "fitted", "distilled")  # of perplexity
_REPORT = "report.json"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("perplexity", __doc__)
    parser.add_argument("--k", type=int, nargs="+", default=[2, 4, 6], help="lower layers that are looked up")
    parser.add_argument("--steps", type=int, default=RECIPE.steps, help="of each distillation")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where what is learnt stays for the next run")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", default=cache_folder(), help="of texts and the model")
    parser.add_argument("--no-speed", action="store_true", help="perplexity alone")
    options = parser.parse_args(arguments)
    device = resolve_device(options.device)
    config = dataclasses.replace(RECIPE, steps=options.steps, device=str(device), dtype=options.dtype)
    corpora = _corpora(options.cache)
    speed = FULL_SPEED
    if options.quick:
        config = dataclasses.replace(config, steps=2, batch_size=2, max_tokens=16)
        corpora, speed = [corpus[:40] for corpus in corpora], QUICK_SPEED
    source = fetch_smollm(options.cache)
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        _claim(folder, config, corpora)
        learnt = {k: _learn(source, folder / f"k{k}", k, corpora, config) for k in options.k}
        speeds: dict[int, dict[str, Any]] = {}
        if not options.no_speed:
            build_base_0 = folder / "k0"
            if not build_base_0.exists():
                build_base(source, build_base_0, 0)
            prompts = [text for corpus in corpora for text in corpus[::20]]
            speeds = measure_speed(build_base_0, {k: folder / f"k{k}" for k in options.k}, prompts, speed, device)
    report = {
        "k": {str(k): {**found, "speed": speeds.get(k)} for k, found in learnt.items()},
        "config": dataclasses.asdict(config),
        "machine": machine(device),
    }
    print(json.dumps(report, indent=1) if options.json else _as_text(report))


def _claim(folder: Path, config: DistillConfig, corpora: list[list[str]]) -> None:
    """Note what is learnt there. Raises `SystemExit` where the folder was filled by another plan."""
    note = folder / "plan.txt"
    text = hashlib.sha256(json.dumps(corpora).encode()).hexdigest()
    plan = f"{config!r} {text}"
    # Earlier runs left no note of theirs.
    known = note.read_text() if note.exists() else None if any(folder.iterdir()) else plan
    if known != plan:
        sys.exit(f"{folder} was filled by a run with another plan; take another folder")
    note.write_text(plan)


def _corpora(cache: Path) -> list[list[str]]:
    glosses = read_glosses(fetch_glosses(cache))
    archive, _ = fetch_sentences(cache)
    sentences = read_sentences(archive)
    return [
        [each for subject in glosses.values() for each in paragraphs(f"{gloss}." for gloss in subject)],
        [
            each
            for domain in sentences.values()
            for each in paragraphs(sentence.text for sentence in domain if sentence.part is Part.TRAIN)
        ],
    ]


def paragraphs(texts: Iterable[str]) -> Iterator[str]:
    """One text after the other, until there are a hundred words."""
    some: list[str] = []
    words = 0
    for text in texts:
        some.append(text.strip())
        words += len(text.split())
        if words >= _WORDS:
            yield " ".join(some)
            some, words = [], 0
    if some:
        yield " ".join(some)


def _learn(source: Path, out: Path, k: int, corpora: list[list[str]], config: DistillConfig) -> dict[str, Any]:
    """What the base's making reported; taken from its folder where it was made before."""
    note = out.with_suffix(".json")
    if out.exists() and note.exists():
        kept: dict[str, Any] = json.loads(note.read_text())
        return kept
    with ProgressBar("training", "steps") as bar:
        report = build_base(
            source,
            out,
            k,
            RowDtype.INT8,
            corpora,
            config,
            on_progress=lambda reached: bar.show_training(reached, f"k = {k}, loss {reached.loss:.3f}"),
        )
    found = _perplexities(report)
    note.write_text(json.dumps(found))
    print(f"k = {k}: {json.dumps(found)}", file=sys.stderr, flush=True)
    return found


def _perplexities(report: BaseReport) -> dict[str, Any]:
    stages = {"converted": report.before, "fitted": report.fitted, "distilled": report.after}
    seen = {name: each.perplexity for name, each in stages.items() if each is not None and each.perplexity}
    last = seen["distilled"]
    return {
        "original": round(last.original, 3),
        **{name: round(each.perplexity, 3) for name, each in seen.items()},
        "above_original": round(last.perplexity / last.original - 1, 4),
        "divergence": {name: round(each.divergence, 4) for name, each in seen.items()},
        "agreement": {name: round(each.agreement, 4) for name, each in seen.items()},
        "layers": [round(each, 4) for each in report.after.layers] if report.after else [],
        "judges": report.dev_texts,
        "losses": [round(each, 4) for each in report.losses],
        "seconds": round(report.seconds),
    }


def _as_text(report: dict[str, Any]) -> str:
    rows = []
    for k, found in report["k"].items():
        speed = found["speed"] or {}
        rows.append(
            [
                k,
                *(f"{found[name]:.2f}" for name in _STAGES),
                f"{100 * found['above_original']:+.1f} %",
                f"{found['divergence']['distilled']:.3f}",
                f"{100 * found['agreement']['distilled']:.1f} %",
                *(f"{speed[name]['ratio']:.2f} x" if speed else "" for name in ("computed", "held")),
            ]
        )
    header = ["k", *_STAGES, "", "divergence", "same word", "all computed", "all held"]
    return f"perplexity on held-back text, and tokens made in a second over k = 0\n{as_table(header, rows)}"


if __name__ == "__main__":
    main()
