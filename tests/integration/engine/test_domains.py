"""The real engine on the real catalog: what a domain's texts are answered does not depend on what the tree holds, and
follows the domain when it is moved, born, or given another delta."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hmi.adapters import Activation, Adapter, AdapterKind, Estimator, Lora
from hmi.adapters.formats import save_adapter
from hmi.catalog import deltas, domains, models, tenants
from hmi.engine import Engine, EngineConfig
from hmi.items import Item, Task
from hmi.knowledge import unpack
from hmi.knowledge.store import Table
from hmi.models.convert import convert_pretrained
from hmi.spec import HPLMSpec, MissPolicy, Site, read_spec
from hmi.tenant_bits import PUBLIC
from tests.engines import numbers
from tests.estimators import random_estimator, with_estimator
from tests.rebuilding import base_id, published
from tests.runtimes import running
from tests.tiny import tiny_bert_folder
from tests.worksite import Worksite
from worker.runtime import Runtime
from worker.shards.answers import _ref
from worker.trees import rebuild

CLS, SEP = 2, 3
TEXTS = [f"w{n} w{n + 1} w{(7 * n) % 90} w{n % 3}" for n in range(12)]


class Firm:
    """One worker with the real engine; answers of one tenant's base models, one for each domain."""

    def __init__(self, site: Worksite, runtime: Runtime, spec: HPLMSpec) -> None:
        self.site = site
        self.runtime = runtime
        self._spec = spec

    def add_domain(self, domain: str, parent: str = "general", *, miss_policy: MissPolicy = MissPolicy.EXACT) -> None:
        self.site.add_domain(domain, parent)
        self.site.add_model("acme", domain, domain=domain, miss_policy=miss_policy)

    def give_delta(self, domain: str, seed: int, estimator: Estimator | None = None) -> None:
        rng = np.random.default_rng(seed)
        inputs, outputs = self._spec.site_shape(Site.V)
        wide = [rng.normal(0, 0.5, shape).astype(np.float32) for shape in ((2, inputs), (outputs, 2))]
        delta = Adapter(AdapterKind.LORA, {(0, Site.V): Lora(*wide)}, {}, True, Activation.IDENTITY, None, estimator)
        folder = self.site.root.parent / f"delta-{seed}"
        folder.mkdir()
        save_adapter(delta, folder / "adapter.safetensors")
        artifact = self.site.artifacts.put_folder(folder)
        with self.site.database.session() as session:
            deltas.set_delta(session, base_id(self.site), domain, artifact, {})

    def move(self, domain: str, parent: str) -> None:
        with self.site.database.session() as session:
            domains.move_domain(session, domain, parent)

    def answers(self, domain: str, texts: Sequence[str] = TEXTS) -> NDArray[np.float64]:
        """Embeddings `[texts, hidden]` of the texts, asked for as a shard does."""
        with self.site.database.session(read_only=True) as session:
            principal = tenants.principal_of(session, tenants.get_tenant(session, "acme").id)
            ref = _ref(models.resolve(session, [f"acme/{domain}"], principal)[f"acme/{domain}"])
        self.runtime.source.refresh_open(self.runtime.engine)
        items = [Item(ref, Task.EMBED, text=text, requester=PUBLIC) for text in texts]
        return np.stack(numbers(self.runtime.engine.submit(items).result(60)))

    def hit_rate(self, domain: str) -> float:
        """Of the lookups since the last time."""
        found = [delta for delta in self.runtime.engine.frequencies.drain() if delta.domain == domain]
        return sum(delta.hits for delta in found) / sum(delta.lookups for delta in found)

    def rebuild(self) -> None:
        rebuild(self.runtime, "base")


@pytest.fixture
def firm(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Firm]:
    """general > reviews > movies, general > news; `reviews` has a delta."""
    with _hired(tmp_path, database_url, redis_url) as firm:
        for domain, parent in (("reviews", "general"), ("movies", "reviews"), ("news", "general")):
            firm.add_domain(domain, parent)
        firm.give_delta("reviews", 1)
        yield firm


@contextlib.contextmanager
def _hired(tmp_path: Path, database_url: str, redis_url: str, *, estimates: bool = False) -> Iterator[Firm]:
    folder = tmp_path / "base"
    convert_pretrained(tiny_bert_folder(tmp_path / "bert"), folder, k=2)
    if estimates:
        with_estimator(folder, random_estimator(32, seed=1))
    spec = read_spec(folder)
    # Rows that no alias stands for: answers are equal then, and not only near.
    site = Worksite(tmp_path / "data", database_url, redis_url, tree_tolerance=0.0)
    site.add_base(spec=spec, folder=folder)
    site.add_tenant("acme")
    config = EngineConfig(device="cpu", dtype="float32", threads=1, miss_cache_bytes=0)
    with running(site, make_engine=lambda source: Engine(config, source)) as runtime:
        runtime.load_bases()
        yield Firm(site, runtime, spec)
    site.close()


def same(left: NDArray[np.float64], right: NDArray[np.float64]) -> bool:
    return bool(np.allclose(left, right, atol=2e-5))


def test_answers_are_those_of_the_domains_function_when_it_is_moved(firm: Firm) -> None:
    by_delta, by_base = firm.answers("movies"), firm.answers("news")
    assert not same(by_delta, by_base)
    firm.rebuild()
    assert published(firm.site).number == 1
    assert same(firm.answers("movies"), by_delta)
    assert firm.hit_rate("movies") == 1
    firm.move("movies", "news")
    assert same(firm.answers("movies"), by_base)
    assert firm.hit_rate("movies") == 1  # what the news have, as the rest of its line
    firm.move("movies", "reviews")
    assert same(firm.answers("movies"), by_delta)
    assert firm.hit_rate("movies") == 1


def test_new_text_is_estimated_and_no_tree_holds_bigrams_when_models_bring_estimators(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    others = [f"w{n + 2} w{n} w{(5 * n) % 90} w{n % 4}" for n in range(12)]
    with _hired(tmp_path, database_url, redis_url, estimates=True) as firm:
        for domain in ("news", "reviews"):
            firm.add_domain(domain, miss_policy=MissPolicy.BACKOFF)
        firm.give_delta("reviews", 1, random_estimator(32, seed=2).weights())
        exact = {domain: firm.answers(domain, others) for domain in ("news", "reviews")}  # there is no tree yet
        for domain in ("news", "reviews"):
            firm.answers(domain)
        firm.rebuild()
        tree = published(firm.site)
        for artifact in tree.tables.values():
            keys = Table.open(firm.site.artifacts.folder(artifact)).keys
            ids = unpack(keys)
            assert not ((ids[:, 0] < 0) & (ids[:, 2] >= 0) & (ids[:, 1] != CLS)).any()
            assert not ((ids[:, 0] >= 0) & (ids[:, 2] < 0) & (ids[:, 1] != SEP)).any()
        unseen = [f"w{n + 40} w{n} w{n + 50}" for n in range(12)]
        computed = firm.runtime.engine.stats().computed_windows
        for domain in ("news", "reviews"):
            assert np.isfinite(firm.answers(domain, unseen)).all()
            assert same(firm.answers(domain, others), exact[domain])  # the tree holds these
        assert firm.runtime.engine.stats().computed_windows == computed


def test_a_new_domain_is_answered_by_its_parents_function_when_no_tree_knows_it(firm: Firm) -> None:
    by_delta, by_base = firm.answers("reviews"), firm.answers("news")
    firm.rebuild()
    firm.runtime.engine.frequencies.drain()
    firm.add_domain("books", "reviews")
    firm.add_domain("sports", "news")
    assert same(firm.answers("books"), by_delta)
    assert firm.hit_rate("books") == 1  # all of it inherited
    assert same(firm.answers("sports"), by_base)
    assert firm.hit_rate("sports") == 1


def test_answers_follow_when_a_delta_is_changed_and_removed(firm: Firm) -> None:
    before, by_base = firm.answers("movies"), firm.answers("news")
    firm.rebuild()
    firm.give_delta("reviews", 2)
    after = firm.answers("movies")
    assert not same(after, before)
    assert not same(after, by_base)
    firm.rebuild()
    firm.runtime.engine.frequencies.drain()
    assert same(firm.answers("movies"), after)
    assert firm.hit_rate("movies") == 1
    with firm.site.database.session() as session:
        deltas.remove_delta(session, base_id(firm.site), "reviews")
    assert same(firm.answers("movies"), by_base)
