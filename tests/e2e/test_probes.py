"""The attack on shared trees: a tenant guesses sentences of another one, and reads from its own answers whether a tree
holds them.

Under `exact` an answer depends on no tree. Where an answer under `backoff` is the same, the tree holds all n-grams of
the sentence: another tenant asked for it before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hmi.catalog import Audience, bases, domains, nodes, trees
from hmi.errors import NotFound
from hmi.models.convert import convert_pretrained
from hmi.settings import Settings
from hmi.spec import MissPolicy, read_spec
from tests.e2e.cluster import Cluster, run_cluster
from tests.tiny import tiny_bert_folder
from tests.worksite import line

MIN_TENANTS = Settings.model_fields["tree_min_tenants"].default
NAMES = [f"w{number}" for number in range(16)]
ILLNESSES = [f"w{number}" for number in range(40, 52)]
SECRETS = {name: ILLNESSES[7 * number % len(ILLNESSES)] for number, name in enumerate(NAMES)}
GUESSED = NAMES[:8]


def sentence(name: str, illness: str) -> str:
    return f"{name} w90 {illness} w91 w92 w93"  # NAME has ILLNESS and takes pills


class Clinic:
    """A cluster with one worker, a victim and other tenants, and the domains `clinics`, for all, and `ward`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.site = cluster.site
        self._rebuilds = 0

    def submit_secrets(self, tenant: str, model: str) -> None:
        self.embed(tenant, [(model, sentence(*secret)) for secret in SECRETS.items()])

    def embed(self, tenant: str, queries: list[tuple[str, str]]) -> list[np.ndarray]:
        """Run a batch of (model, text) and return its embeddings."""
        lines = [
            line(f"{place:05}", f"{tenant}/{model}", text, url="/v1/embeddings")
            for place, (model, text) in enumerate(queries)
        ]
        batch = self.site.submit(tenant, lines)
        self.cluster.wait_until(lambda: self.site.has_ended(tenant, batch), 120, what=f"the end of {batch}")
        results = self.site.results(tenant, batch)
        assert results.errors == {}
        return [np.array(results.answers[each["custom_id"]]["data"][0]["embedding"], np.float32) for each in lines]

    def rebuild(self) -> None:
        """Rebuild the tree and wait until the worker serves it."""
        self._rebuilds += 1
        with self.site.database.session() as session:
            trees.request_rebuild(session, bases.get_base(session, "base").id)  # `reconcile` sends it

        def in_use() -> list[int]:
            with self.site.database.session(read_only=True) as session:
                return [use["number"] for node in nodes.list_nodes(session, 60) for use in node.stats["trees"]]

        self.cluster.wait_until(lambda: in_use() == [self._rebuilds], what="the new tree")

    def secrets_read(self) -> int:
        """The curious tenant's attack: of how many names does it learn the illness?"""
        guesses = [(name, illness) for name in GUESSED for illness in ILLNESSES]
        models = ("exact", "backoff")
        found = self.embed("curious", [(model, sentence(*guess)) for guess in guesses for model in models])
        pairs = zip(found[::2], found[1::2], strict=True)
        held = [guess for guess, pair in zip(guesses, pairs, strict=True) if np.allclose(*pair, rtol=0, atol=1e-5)]
        return sum([illness for each, illness in held if each == name] == [SECRETS[name]] for name in GUESSED)

    def hit_rate(self, domain: str) -> float:
        """Of the served version's lookups."""
        with self.site.database.session(read_only=True) as session:
            base = bases.get_base(session, "base")
            use = trees.hit_counts(session, base.id, self._rebuilds).get(domain)
        return use.hits / use.lookups if use else 0.0

    def refusal(self, domain: str) -> str:
        """The error that the curious tenant gets when it registers models there, the domain's name left out."""
        refusals = set()
        for policy in MissPolicy:
            with pytest.raises(NotFound) as refused:
                self.site.add_model("curious", f"{domain}-{policy}", domain=domain, miss_policy=policy)
            refusals.add(f"{refused.value.code}: {refused.value}".replace(domain, "DOMAIN"))
        (message,) = refusals
        return message


@contextlib.contextmanager
def _clinic(folder: Path, **settings: int) -> Iterator[Clinic]:
    base = folder / "base"
    convert_pretrained(tiny_bert_folder(folder / "bert"), base, k=2)
    with run_cluster(folder, shard_lines=64, **settings) as cluster:
        site = cluster.site
        site.add_base(spec=read_spec(base), folder=base)
        site.add_domain("clinics")
        for tenant in ("victim", "curious", *(f"other{number}" for number in range(1, MIN_TENANTS))):
            site.add_tenant(tenant)
            site.add_model(tenant, "exact", domain="clinics")
        with site.database.session() as session:
            domains.create_domain(session, "ward", owner="victim", audience=Audience.PRIVATE)
        site.add_model("victim", "private", domain="ward")
        site.add_model("curious", "backoff", domain="clinics", miss_policy=MissPolicy.BACKOFF)
        cluster.beat()
        cluster.worker()
        yield Clinic(cluster)


def test_no_secret_is_read_from_a_shared_tree_until_enough_tenants_submitted_it(tmp_path: Path) -> None:
    with _clinic(tmp_path) as clinic:
        clinic.submit_secrets("victim", "exact")
        clinic.submit_secrets("victim", "private")
        clinic.rebuild()
        assert clinic.secrets_read() == 0
        clinic.submit_secrets("victim", "private")
        clinic.cluster.wait_until(lambda: clinic.hit_rate("ward") == 1, what="the flush")  # one tenant is enough there
        assert len({clinic.refusal(domain) for domain in ("ward", "nowhere")}) == 1
        clinic.rebuild()
        assert clinic.secrets_read() == 0  # though the curious tenant asked for all of them too
        for number in range(1, MIN_TENANTS):
            clinic.submit_secrets(f"other{number}", "exact")
        clinic.rebuild()
        assert clinic.secrets_read() == len(GUESSED)  # no secret: enough tenants submitted it


def test_secrets_are_read_when_no_other_tenants_are_asked_for(tmp_path: Path) -> None:
    """What the rule is for: the attack above succeeds without it."""
    with _clinic(tmp_path, tree_min_tenants=1) as clinic:
        clinic.submit_secrets("victim", "exact")
        clinic.rebuild()
        assert clinic.secrets_read() == len(GUESSED)
