"""How fast each k serves the texts that are asked, beside the ordinary model in the same run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.accuracy.learning import Learner
from benchmarks.accuracy.trees import tree_of
from benchmarks.serving import BACKOFF, EXACT, ORDINARY, Query, Rate, Server, compare
from hmi.engine import EngineConfig
from hmi.spec import MissPolicy

ALL_HELD = "exact, all held"
_ROUNDS = 3


def measure_speed(learner: Learner, k: int) -> Mapping[str, Rate]:
    """The ordinary model; `exact` and `backoff` with the tree of the training text; `exact` where the tree knows every
    window. Without adapters: what they cost is the same in all of them."""
    texts = learner.texts
    training = {domain: [each.text for each in text.training] for domain, text in texts.items()}
    everything = {domain: [*training[domain], *(each.text for each in text.asked)] for domain, text in texts.items()}
    queries: list[Query] = [(domain, each.text) for domain, text in texts.items() for each in text.asked]
    portions = [queries[turn::_ROUNDS] for turn in range(_ROUNDS)]
    config = EngineConfig(device=learner.device, dtype=learner.dtype)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        servers = {ORDINARY: stack.enter_context(Server(learner.base(0), config))}
        for name, policy, held in (
            (EXACT, MissPolicy.EXACT, training),
            (BACKOFF, MissPolicy.BACKOFF, training),
            (ALL_HELD, MissPolicy.EXACT, everything),
        ):
            server = stack.enter_context(Server(learner.base(k), config, policy))
            server.publish(tree_of(server.engine, server.base, learner.base(k), Path(folder, name), held, {}))
            servers[name] = server
        return compare(servers, portions)
