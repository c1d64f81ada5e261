"""The replay, and engines that serve three of its moments with real trees: before the drift, after it, rebuilt."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.coverage.corpora import Corpus, Tokenised, all_texts, shuffled
from benchmarks.coverage.plan import CoveragePlan
from benchmarks.coverage.planning import Planner
from benchmarks.coverage.replay import Served, replay
from benchmarks.coverage.serving import EXACT, Query, Server, compare, open_servers
from benchmarks.coverage.traffic import Period, drifting, parents_of, steady
from examples.demo import find_pretrained
from hmi.knowledge import Function, Keys
from hmi.knowledge.build import build_tree
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.plan import PreviousTree, TreePlan
from hmi.knowledge.store import Table
from hmi.models.convert import convert_pretrained

__all__ = ["measure_drift"]

_BASE, _ORDINARY = "minilm", "minilm-k0"


@dataclasses.dataclass(frozen=True, slots=True)
class _Moment:
    """Texts of a period, and the place in the replay of the version that answers them."""

    name: str
    period: int
    version: int


def measure_drift(
    folder: Path, sentences: Corpus, definitions: Corpus, tokenizer: Tokenizer, plan: CoveragePlan
) -> dict[str, Any]:
    """The report's part `drift`; see the package's `__main__`."""
    spec = convert_pretrained(find_pretrained(), folder / _BASE, k=plan.drift_k)
    convert_pretrained(find_pretrained(), folder / _ORDINARY, k=0)
    planner = Planner(spec, _BASE)
    parents = parents_of(sentences)
    tokenised = Tokenised(all_texts((sentences, definitions)), tokenizer)

    def answer(periods: Sequence[Period], half_life: float | None = plan.half_lives[0]) -> list[Served]:
        asked = [{domain: tokenised.keys(texts) for domain, texts in period.items()} for period in periods]
        return replay(asked, parents, planner, plan.node_entries, half_life)

    before, after = drifting(sentences, definitions, plan.periods)
    periods = [*before, *after]
    shipped, undrifted = answer(periods), answer(steady(before, after))
    turn = plan.periods
    moments = [
        _Moment("before", turn - 1, turn - 2),
        _Moment("after_drift", turn, turn - 1),
        _Moment("after_rebuild", turn + 1, turn),
    ]
    rates = _rates(shipped, moments)
    faded = [(half_life, answer(periods, half_life)) for half_life in plan.half_lives[1:]]
    other = []
    for drift in plan.drifts:
        first, second = drifting(sentences, definitions, plan.periods, drift)
        other.append((drift, answer([*first, *second])))
    return {
        "node_entries": plan.node_entries,
        "node_bytes": plan.node_entries * planner.entry_bytes,
        "periods_in_each_half": turn,
        "lookups_in_a_period": sum(each.found.lookups for each in shipped) // len(shipped),
        **rates,
        "periods": [
            {**_as_dict(each), "hit_rate_without_drift": round(other.found.hit_rate, 4)}
            for each, other in zip(shipped, undrifted, strict=True)
        ],
        "half_lives": [
            {"half_life_periods": half_life, **_rates(each, moments)}
            for half_life, each in [(plan.half_lives[0], shipped), *faded]
        ],
        "drifts": [{"drift": drift.name, "backward": drift.backward, **_rates(each, moments)} for drift, each in other],
        **_serve(folder, planner, shipped, periods, moments, plan),
    }


def _as_dict(served: Served) -> dict[str, Any]:
    return {
        "hit_rate": round(served.found.hit_rate, 4),
        "inherited_share": round(served.found.inherited_share, 4),
        "predicted": None if served.predicted is None else round(served.predicted, 4),
        "by_domain": {domain: round(each.hit_rate, 4) for domain, each in sorted(served.by_domain.items())},
        "rebuilt_entries": served.entries,
        "rebuilt_added": served.added,
    }


def _rates(served: Sequence[Served], moments: Sequence[_Moment]) -> dict[str, float]:
    """Hit rates at the moments and at the end, and the points that the rebuild did not bring back."""
    rates = {f"hit_{moment.name}": round(served[moment.period].found.hit_rate, 4) for moment in moments}
    lacking = round(100 * (rates["hit_before"] - rates["hit_after_rebuild"]), 2)
    return {**rates, "hit_at_end": round(served[-1].found.hit_rate, 4), "recovered_within_points": lacking}


def _serve(
    folder: Path,
    planner: Planner,
    served: Sequence[Served],
    periods: Sequence[Period],
    moments: Sequence[_Moment],
    plan: CoveragePlan,
) -> dict[str, Any]:
    """Build the three versions, each from the one before, publish them, and serve texts of the periods with them."""
    throughput, builds = {}, []
    tree: KnowledgeTree | None = None
    with ExitStack() as stack:
        servers = open_servers(stack, folder / _BASE, folder / _ORDINARY, plan.device, plan.dtype)
        for server in servers.values():
            server.run(_queries(periods[0], plan.portion))  # a process's first run is slower
        for moment in moments:
            tree, report = _build(folder, planner, served[moment.version].plan, moment.version, tree, servers[EXACT])
            builds.append(report)
            for server in servers.values():
                if server.spec.k:
                    server.publish(tree)
            queries = _queries(periods[moment.period], plan.portion * (plan.rounds + 1))
            for server in servers.values():
                server.run(queries[: plan.portion])
            portions = [queries[at : at + plan.portion] for at in range(plan.portion, len(queries), plan.portion)]
            rates = compare(servers, portions)
            throughput[moment.name] = {name: dataclasses.asdict(each) for name, each in rates.items()}
    return {"throughput": throughput, "builds": builds}


def _queries(period: Period, most: int) -> list[Query]:
    domain_of = {text: domain for domain, texts in period.items() for text in texts}
    return [(domain_of[text], text) for text in shuffled(domain_of, salt="queue")[:most]]


def _build(
    folder: Path, planner: Planner, plan: TreePlan, number: int, old: KnowledgeTree | None, server: Server
) -> tuple[KnowledgeTree, dict[str, Any]]:
    spec = planner.spec

    def compute(function: Function, keys: Keys) -> NDArray[np.float32]:
        return server.engine.compute_rows(function.base, keys, function.delta)

    begin = time.perf_counter()
    report = build_tree(
        folder / f"version-{number}",
        plan,
        PreviousTree.of(old, tolerance=0.0),
        compute,
        row_dtype=spec.row_dtype,
        hidden_size=spec.hidden_size,
        tolerance=0.0,
        progress=lambda _: None,
    )
    tables = {
        domain: Table.open(folder / f"version-{number}" / domain) for domain, keys in plan.tables.items() if len(keys)
    }
    functions = {domain: function.digest for domain, function in plan.functions.items()}
    tree = KnowledgeTree(number + 1, plan.parents, tables, spec.row_dtype, spec.hidden_size, functions)
    return tree, {
        "number": number + 1,
        "entries": tree.entries,
        "bytes": tree.bytes,
        "computed": report.computed,
        "copied": sum(each.copied for each in report.domains.values()),
        "seconds": round(time.perf_counter() - begin, 2),
    }
