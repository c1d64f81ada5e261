"""From answers to figures: accuracy, macro-F1, gaps to the full model with their standard errors, JSON and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.asking import Asked
from benchmarks.accuracy.learning import Job
from benchmarks.accuracy.plan import DomainText, System
from benchmarks.command import as_table
from benchmarks.serving import Rate

Answers = Mapping[Job, NDArray[np.str_]]


@dataclass(frozen=True, slots=True)
class Score:
    """Of one system in one domain, in points of 100, the mean over the seeds.

    `se` is the standard error of the mean: of the test sentences, and of the seeds.
    """

    accuracy: float
    macro_f1: float
    se: float


def score(answers: Sequence[NDArray[np.str_]], truth: Sequence[str]) -> Score:
    """Score the labels of the test sentences, by seed."""
    right = np.array([each == np.array(truth) for each in answers])  # [seeds, sentences]
    return Score(
        round(100 * float(right.mean()), 2),
        round(100 * float(np.mean([_macro_f1(each, np.array(truth)) for each in answers])), 2),
        round(100 * _error(right.astype(np.float64)), 2),
    )


def k_report(
    full: Answers, asked: Mapping[System, Asked], texts: Mapping[str, DomainText], speed: Mapping[str, Rate]
) -> dict[str, Any]:
    """What one k comes to, JSON-ready: scores by domain, and each system's gap to the full model in points."""
    answers: dict[Job, NDArray[np.str_]] = {**full}
    for each in asked.values():
        answers.update(each.answers)
    found: dict[str, dict[str, list[NDArray[np.str_]]]] = {domain: {} for domain in texts}
    for job in sorted(answers, key=lambda each: each.seed):
        found[job.domain].setdefault(job.system, []).append(answers[job])
    domains = {
        domain: {
            "hit_rate": round(asked[System.EXACT].hit_rate.get(domain, 0.0), 4),
            **{system: asdict(score(seeds, texts[domain].truth)) for system, seeds in systems.items()},
        }
        for domain, systems in found.items()
    }
    gaps = {system: _gaps(found, texts, system) for system in System if system is not System.FULL}
    return {
        "domains": domains,
        "mean_gap_exact": gaps[System.CARRIED_EXACT]["mean"],
        "mean_gap_backoff": gaps[System.CARRIED_BACKOFF]["mean"],
        "gaps": gaps,
        "tree_bytes": {system: asked[system].tree_bytes for system in (System.EXACT, System.DELTA_EXACT)},
        "speed": {name: asdict(rate) for name, rate in speed.items()},
    }


def _gaps(
    found: Mapping[str, Mapping[str, list[NDArray[np.str_]]]], texts: Mapping[str, DomainText], system: System
) -> dict[str, Any]:
    """Points that the system is below the full model: by domain, the mean over the domains, and its standard error, of
    differences on the same sentences."""
    gaps, errors = {}, []
    for domain, systems in found.items():
        truth = np.array(texts[domain].truth)
        best, ours = (np.array([each == truth for each in systems[name]]) for name in (System.FULL, system))
        lost = best.astype(np.float64) - ours.astype(np.float64)  # [seeds, sentences]
        gaps[domain] = round(100 * float(lost.mean()), 2)
        errors.append(100 * _error(lost))
    return {
        **gaps,
        "mean": round(float(np.mean(list(gaps.values()))), 2),
        "se": round(float(np.linalg.norm(errors)) / len(errors), 2),
        "worst": max(gaps.values()),
    }


def _error(values: NDArray[np.float64]) -> float:
    """Standard error of the mean of `[seeds, sentences]`: of drawing other sentences, and of drawing other seeds."""
    seeds, sentences = values.shape
    of_sentences = values.mean(0).std(ddof=1) / np.sqrt(sentences) if sentences > 1 else 0.0
    of_seeds = values.mean(1).std(ddof=1) / np.sqrt(seeds) if seeds > 1 else 0.0
    return float(np.hypot(of_sentences, of_seeds))


def _macro_f1(answers: NDArray[np.str_], truth: NDArray[np.str_]) -> float:
    scores = []
    for label in np.unique(truth):
        hit = float(np.sum((answers == label) & (truth == label)))
        scores.append(2 * hit / float(np.sum(answers == label) + np.sum(truth == label)))
    return float(np.mean(scores))


def as_text(report: Mapping[str, Any]) -> str:
    """Tables for people: accuracy by k and system, then speed."""
    lines = []
    for name, scores in report["baselines"].items():
        lines.append(f"{name}: " + ", ".join(f"{domain} {each['accuracy']:.1f}" for domain, each in scores.items()))
    for k, part in report["k"].items():
        domains = list(part["domains"])
        rows = []
        for system in System:
            row = [part["domains"][domain].get(system) for domain in domains]
            if not all(row):
                continue
            gap = part["gaps"].get(system)
            rows.append(
                [
                    system.value,
                    *(f"{each['accuracy']:.1f} ±{each['se']:.1f} (F1 {each['macro_f1']:.1f})" for each in row if each),
                    f"{np.mean([each['accuracy'] for each in row if each]):.2f}",
                    f"{gap['mean']:.2f} ±{gap['se']:.2f}, worst {gap['worst']:.2f}" if gap else "",
                ]
            )
        lines += ["", f"k = {k}", as_table(["system", *domains, "mean", "below the full model"], rows)]
        speed = [
            [name, f"{each['tokens_s']:,.0f}", f"{each['ratio']:.2f}", _share(each["hit_rate"])]
            for name, each in part["speed"].items()
        ]
        lines += ["", as_table(["serving", "tokens/s", "of the ordinary model", "windows held"], speed)]
        lines.append(", ".join(f"tree of {system} {size / 1e6:.1f} MB" for system, size in part["tree_bytes"].items()))
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"
